// npm `@openai/agents-realtime`: a spoken turn, an interruption (the SDK truncates by itself), a function call.
//
// `node agents_realtime.mjs MODULES_FOLDER WS_URL RECORDING.pcm` prints one JSON object: what the client received.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

const [modules, url, recording] = process.argv.slice(2);
const { resolve } = createRequire(pathToFileURL(`${modules}/package.json`));
const { RealtimeAgent, RealtimeSession, tool } = await import(pathToFileURL(resolve('@openai/agents-realtime')).href);

const CHUNK = 1920; // 40 ms of 24 kHz PCM16
const cities = [];
const weather = tool({
  name: 'get_weather',
  description: 'The weather in a city',
  strict: true,
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false },
  execute: async ({ city }) => { cities.push(city); return 'sunny'; },
});

const agent = new RealtimeAgent({ name: 'Weather', instructions: 'Answer briefly.', tools: [weather] });
const session = new RealtimeSession(agent, { transport: 'websocket', config: { audio: { input: { turnDetection: { type: 'server_vad', silence_duration_ms: 300 } } } } });
const types = {}, errors = [], sent = [], dones = [], transcripts = [], audio = {};
let interruptions = 0;
session.on('error', ({ error }) => errors.push(String(error?.message ?? JSON.stringify(error))));
session.on('audio', ({ data, responseId }) => { audio[responseId] = (audio[responseId] ?? 0) + data.byteLength; });
session.on('audio_interrupted', () => { interruptions += 1; });
session.transport.on('*', (event) => {
  types[event.type] = (types[event.type] ?? 0) + 1;
  if (event.type === 'response.done') dones.push(event.response);
  if (event.type === 'conversation.item.input_audio_transcription.completed') transcripts.push(event.transcript);
});
const send = session.transport.sendEvent.bind(session.transport);
session.transport.sendEvent = (event) => { if (event.type !== 'input_audio_buffer.append') sent.push(event); send(event); };

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
await until(() => dones.length === 1, 'the first answer');
await say();
await until(() => Object.keys(audio).length === 2, 'the long answer');
await sleep(500); // half a second of it has been played
await say();
await until(() => interruptions >= 1 && dones.length === 3, 'the answer to the interruption');
await say();
await until(() => dones.length === 5, 'the answer after the call');
running = false;
await speaking;
const history = session.history;
session.close();
console.log(JSON.stringify({
  types, errors, interruptions, cities, transcripts,
  audioBytes: dones.map((response) => audio[response.id] ?? 0),
  truncatedMs: sent.filter((event) => event.type === 'conversation.item.truncate').map((event) => event.audio_end_ms),
  statuses: dones.map((response) => response.status),
  reasons: dones.map((response) => response.status_details?.reason ?? null),
  texts: dones.map((response) => response.output.flatMap((item) => item.content ?? []).map((part) => part.transcript ?? '').join('')),
  history: history.map((item) => item.type),
}));
process.exit(0);
