{{/* Name of one of the limits: an object outside namespaces, as `clusterName`, but a DNS name. */}}
{{- define "dllm-operator.policyName" -}}
{{- printf "%s.%s.%s" .root.Release.Namespace (include "dllm-operator.fullname" .root) .limit -}}
{{- end -}}

{{/* CEL, true where `what` is one of `prefixes`. One that ends in a slash stands for what is below it; any other for
     itself, and for itself with a tag or a digest: `a/b` is neither `a/b-evil` nor `a/b/c` nor, as a registry, `a/b:1/c`. */}}
{{- define "dllm-operator.imageAllowed" -}}
{{- $prefixes := .prefixes | toJson -}}
{{ $prefixes }}.exists(prefix, {{ .what }} == prefix || (prefix.endsWith('/') && {{ .what }}.startsWith(prefix)) || (({{ .what }}.startsWith(prefix + ':') || {{ .what }}.startsWith(prefix + '@')) && !{{ .what }}.substring(prefix.size()).contains('/')))
{{- end -}}

{{/* The same decision about the default image, which no resource names: "true" or "". */}}
{{- define "dllm-operator.defaultImageAllowed" -}}
{{- $image := include "dllm-operator.serverImage" . -}}
{{- range .Values.policies.allowedImages -}}
{{- $rest := trimPrefix . $image -}}
{{- if or (eq $image .) (and (hasSuffix "/" .) (hasPrefix . $image)) (and (or (hasPrefix (printf "%s:" .) $image) (hasPrefix (printf "%s@" .) $image)) (not (contains "/" $rest))) -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* CEL, true where the source `what` is one of the allowed: itself, below one that ends in a slash, or in the claim or
     directory that one names. */}}
{{- define "dllm-operator.sourceAllowed" -}}
{{ .sources | toJson }}.exists(prefix, {{ .what }} == prefix || (prefix.endsWith('/') && {{ .what }}.startsWith(prefix)) || (prefix.startsWith('pvc://') && {{ .what }}.startsWith(prefix + '/')))
{{- end -}}

{{/* CEL, whether a spec says how many GPUs its pods take at most: not where a pod comes with each kind of node. */}}
{{- define "dllm-operator.saysGpus" -}}
({{ . }}.device == 'cpu' || has({{ . }}.gpuPools) || (has({{ . }}.replicas) && !has({{ . }}.autoscaling)))
{{- end -}}

{{/* CEL, that number. Pods that pools share may all be in the pool with the most GPUs a pod. */}}
{{- define "dllm-operator.gpus" -}}
{{- $own := printf "%s.gpuPools.filter(pool, has(pool.replicas))" . -}}
{{- $shared := printf "%s.gpuPools.filter(pool, !has(pool.replicas))" . -}}
{{- $rest := printf "(has(%s.replicas) ? [0, int(%s.replicas - %s.map(pool, pool.replicas).sum())].max() : %s.size())" . . $own $shared -}}
({{ . }}.device == 'cpu' ? 0 : !has({{ . }}.gpuPools) ? (has({{ . }}.replicas) ? {{ . }}.replicas : 0) : has({{ . }}.autoscaling) ? {{ . }}.gpuPools.map(pool, pool.gpusPerReplica * {{ . }}.autoscaling.maxReplicas).sum() : {{ $own }}.map(pool, pool.gpusPerReplica * pool.replicas).sum() + ({{ $shared }}.size() == 0 ? 0 : {{ $rest }} * {{ $shared }}.map(pool, pool.gpusPerReplica).max()))
{{- end -}}

{{/* A policy and its binding. Fields of a resource that were so before may stay: what is limited is what changes. */}}
{{- define "dllm-operator.policy" -}}
{{- $name := include "dllm-operator.policyName" . }}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- include "dllm-operator.labels" .root | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [serving.dllm.dev]
        apiVersions: ["*"]
        operations: [CREATE, UPDATE]
        resources: [{{ .resource | default "dllmdeployments" | quote }}]
  {{- with .variables }}
  variables:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  validations:
    {{- toYaml .validations | nindent 4 }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "dllm-operator.labels" .root | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
  {{- with .root.Values.watchNamespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
        - key: kubernetes.io/metadata.name
          operator: In
          values:
            {{- toYaml . | nindent 12 }}
  {{- end }}
{{- end -}}
