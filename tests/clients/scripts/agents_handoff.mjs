// npm `@openai/agents-realtime`: the caller speaks while a tool still runs; then an agent hands the caller over to another.
//
// `node agents_handoff.mjs MODULES_FOLDER WS_URL RECORDING.pcm` prints one JSON object: what the client received.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

const [modules, url, recording] = process.argv.slice(2);
const { resolve } = createRequire(pathToFileURL(`${modules}/package.json`));
const { RealtimeAgent, RealtimeSession, tool } = await import(pathToFileURL(resolve('@openai/agents-realtime')).href);

const CHUNK = 1920; // 40 ms of 24 kHz PCM16
const invoices = [], outputs = [], handoffs = [];
let lookedUp;
const looking = new Promise((done) => { lookedUp = done; });
const object = (properties) => ({ type: 'object', properties, required: Object.keys(properties), additionalProperties: false });
const weather = tool({
  name: 'get_weather', description: 'The weather in a city', strict: true, parameters: object({ city: { type: 'string' } }),
  execute: async ({ city }) => { await looking; return `sunny in ${city}`; },
});
const invoice = tool({
  name: 'get_invoice', description: 'An invoice', strict: true, parameters: object({ number: { type: 'integer' } }),
  execute: async ({ number }) => { invoices.push(number); return 'paid'; },
});
const billing = new RealtimeAgent({ name: 'billing', instructions: 'You are billing.', tools: [invoice], handoffDescription: 'Invoices' });
const agent = new RealtimeAgent({ name: 'weather', instructions: 'Answer briefly.', tools: [weather], handoffs: [billing] });
const config = { audio: { input: { turnDetection: { type: 'server_vad', silence_duration_ms: 300 } } } };
const session = new RealtimeSession(agent, { transport: 'websocket', config });
const types = {}, errors = [], dones = [], audio = {};
session.on('error', ({ error }) => errors.push(String(error?.message ?? JSON.stringify(error))));
session.on('audio', ({ data, responseId }) => { audio[responseId] = (audio[responseId] ?? 0) + data.byteLength; });
session.on('agent_tool_end', (_context, _agent, _tool, result) => outputs.push(result));
session.on('agent_handoff', (_context, from, to) => handoffs.push([from.name, to.name]));
session.transport.on('*', (event) => {
  types[event.type] = (types[event.type] ?? 0) + 1;
  if (event.type === 'response.done') dones.push(event.response);
});

async function until(condition, what) {
  for (const deadline = Date.now() + 30_000; !condition(); await sleep(10)) {
    if (Date.now() > deadline) throw new Error(`timed out waiting for ${what}; seen ${JSON.stringify(types)} errors ${errors}`);
  }
}

let pending = Buffer.alloc(0), running = true;
async function microphone() {
  for (let due = Date.now(); running; due += 40, await sleep(Math.max(0, due - Date.now()))) {
    const chunk = Buffer.alloc(CHUNK);
    pending.copy(chunk, 0, 0, CHUNK);
    pending = pending.subarray(CHUNK);
    session.sendAudio(chunk.buffer.slice(chunk.byteOffset, chunk.byteOffset + CHUNK));
  }
}
async function say() { pending = readFileSync(recording); await until(() => pending.length === 0, 'the recording'); }

await session.connect({ apiKey: 'unused', url });
const speaking = microphone();
await say();
await until(() => dones.length === 1, 'the call');
await say();
await until(() => dones.length === 2, 'the answer while the tool runs');
lookedUp();
await until(() => dones.length === 3, 'the answer to the late output');
await say();
await until(() => dones.length === 5, 'the answer of the other agent');
await say();
await until(() => dones.length === 7, "the answer after the other agent's call");
running = false;
await speaking;
session.close();
console.log(JSON.stringify({
  types, errors, invoices, outputs, handoffs,
  statuses: dones.map((response) => response.status),
  audioBytes: dones.map((response) => audio[response.id] ?? 0),
}));
process.exit(0);
