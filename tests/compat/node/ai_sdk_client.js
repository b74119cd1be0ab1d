// What a program does with Vercel's AI SDK. Arguments: URL KEY MODEL. Tells its outcomes as drivers/outcomes.py does.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, Output, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const [url, apiKey, name] = process.argv.slice(2);
const address = { baseURL: `${url}/v1`, apiKey };
const compatible = createOpenAICompatible({ name: "dllm", supportsStructuredOutputs: true, ...address })(name);
const chat = createOpenAI(address).chat(name);
const responses = createOpenAI(address).responses(name);

// As drivers/orders.py.
const asked = { prompt: "Ada has tea and two biscuits at four.", maxOutputTokens: 240, maxRetries: 0 };
const snack = z.strictObject({ what: z.enum(["biscuit", "apple"]), count: z.int().min(1).max(9) });
const schema = z.strictObject({
  name: z.string().max(6),
  drink: z.enum(["tea", "coffee"]),
  snacks: z.array(snack).min(1).max(2),
  is_paid: z.boolean(),
  note: z.string().max(4).nullable(),
});
const order = tool({ description: "Order it.", inputSchema: schema });

const generate = async (model) => (await generateObject({ model, schema, ...asked })).object;

const output = async (model) =>
  (await generateText({ model, output: Output.object({ schema }), ...asked })).output;

/** Runs what streams, whose errors are told aside. */
const streamed = async (start, read) => {
  const errors = [];
  const told = await read(start({ onError: ({ error }) => errors.push(error) }));
  if (errors.length > 0) throw errors[0];
  return told;
};

const stream = (model) =>
  streamed(
    (more) => streamObject({ model, schema, ...asked, ...more }),
    async (result) => {
      const states = [];
      for await (const state of result.partialObjectStream) states.push(state);
      if (states.length < 2) throw new Error(`came at once: ${JSON.stringify(states)}`);
      return result.object;
    },
  );

const call = async (model) => {
  const result = await generateText({ model, tools: { order }, toolChoice: "required", ...asked });
  return result.toolCalls[0].input;
};

const streamCall = (model) =>
  streamed(
    (more) =>
      streamText({ model, tools: { order }, toolChoice: { type: "tool", toolName: "order" }, ...asked, ...more }),
    async (result) => (await result.toolCalls)[0].input,
  );

/** A call, its result, and a second call with both in its history. */
const steps = async (model) => {
  const sizes = [];
  const price = tool({
    description: "Tell the price of a drink.",
    inputSchema: z.strictObject({ size: z.enum(["small", "large"]) }),
    execute: ({ size }) => {
      sizes.push(size);
      return { price: 2.5 };
    },
  });
  const result = await generateText({
    model,
    tools: { price, order },
    prepareStep: ({ stepNumber }) => ({ toolChoice: { type: "tool", toolName: ["price", "order"][stepNumber] } }),
    stopWhen: stepCountIs(2),
    ...asked,
  });
  if (sizes.length !== 1) throw new Error(`the price was asked for ${sizes.length} times`);
  return result.toolCalls[0].input;
};

const cases = {
  "generateObject, compatible": () => generate(compatible),
  "generateObject, chat": () => generate(chat),
  "generateObject, responses": () => generate(responses),
  "streamObject, compatible": () => stream(compatible),
  "streamObject, responses": () => stream(responses),
  "generateText with an output": () => output(compatible),
  "generateText with a tool": () => call(compatible),
  "streamText with a tool, chat": () => streamCall(chat),
  "streamText with a tool, responses": () => streamCall(responses),
  "steps, compatible": () => steps(compatible),
  "steps, responses": () => steps(responses),
};

const outcomes = {};
for (const [title, run] of Object.entries(cases)) {
  try {
    outcomes[title] = { answer: await run() };
  } catch (error) {
    console.error(error);
    outcomes[title] = { error: { kinds: [error.name], text: error.message } };
  }
}
console.log(JSON.stringify(outcomes));
