{{/* Name of the chart's objects. A release that is the first part of the chart's name adds nothing to it. */}}
{{- define "dllm-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else if hasPrefix (printf "%s-" .Release.Name) $name -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of objects outside namespaces: releases of one name in two namespaces must not meet. */}}
{{- define "dllm-operator.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "dllm-operator.fullname" .) -}}
{{- end -}}

{{- define "dllm-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "dllm-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "dllm-operator.selectorLabels" -}}
app.kubernetes.io/name: dllm-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "dllm-operator.labels" -}}
{{ include "dllm-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: dllm-serve
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "dllm-operator.operatorImage" -}}
{{- default (printf "docker.io/dllmserve/dllm-operator:%s" .Chart.AppVersion) .Values.operator.image -}}
{{- end -}}

{{/* ConfigMap of what tuning has learned by GPU type; the operator writes it, and it outlives a release. */}}
{{- define "dllm-operator.profilesName" -}}
{{- printf "%s-profiles" (include "dllm-operator.fullname" .) -}}
{{- end -}}

{{- define "dllm-operator.serverImage" -}}
{{- default (printf "docker.io/dllmserve/dllm-server:%s" .Chart.AppVersion) .Values.server.image -}}
{{- end -}}

{{- define "dllm-operator.subject" -}}
kind: ServiceAccount
name: {{ include "dllm-operator.serviceAccountName" . }}
namespace: {{ .Release.Namespace | quote }}
{{- end -}}

{{/* Namespace of the test's resource: the release's if it is watched, else the first that is. */}}
{{- define "dllm-operator.testNamespace" -}}
{{- if or (empty .Values.watchNamespaces) (has .Release.Namespace .Values.watchNamespaces) -}}
{{- .Release.Namespace -}}
{{- else -}}
{{- first .Values.watchNamespaces -}}
{{- end -}}
{{- end -}}

{{/* Hooks of the test, all of one name: `helm test --logs` looks for a pod of each hook's name. */}}
{{- define "dllm-operator.testAnnotations" -}}
helm.sh/hook: test
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
