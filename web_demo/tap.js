// Listens to whatever is connected to it: 24 kHz PCM16 in chunks of 40 ms with their loudness, whatever the context's rate.

export const TAP_RATE = 24000;

// An AudioNode to connect sounds to. onChunk(ArrayBuffer of PCM16, level), RMS from 0 to 1.
export async function makeTap(context, onChunk) {
  await context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
  const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  node.port.onmessage = ({ data }) => onChunk(data.pcm, data.level);
  return node;
}
