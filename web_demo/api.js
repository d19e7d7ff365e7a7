// What is asked of the server over HTTP, beside the call itself.

import { Problem } from "./problems.js";

// Whether a text can be a key: what fits a header and a WebSocket subprotocol (RFC 9110, token). None is one too.
export function isKey(text) {
  return /^[\w!#$%&'*+.^`|~-]*$/.test(text);
}

// The headers that show a key, if there is one.
export function authorised(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// How WebRTC finds its way through the network: an RTCConfiguration. One without servers where the server names none.
export async function iceConfiguration(base, key) {
  try {
    const response = await fetch(new URL("v1/realtime/ice_servers", base), { headers: authorised(key), cache: "no-store" });
    return response.ok ? { iceServers: (await response.json()).iceServers ?? [] } : {};
  } catch {
    return {};
  }
}

// The model that answers: {id, voices, languages}; null where the server does not say.
export async function servedModel(base, key) {
  try {
    const response = await fetch(new URL("v1/models", base), { headers: authorised(key), cache: "no-store" });
    return response.ok ? (await response.json()).data[0] : null;
  } catch {
    return null;
  }
}

// What the server says of itself: "ok", why no call can begin now ("engine_restarting", ...), or "" where it does not answer.
export async function health(base) {
  try {
    return (await (await fetch(new URL("healthz", base), { cache: "no-store" })).json()).status;
  } catch {
    return "";
  }
}

// A connection that was never opened tells nothing, nor does a worklet that was not loaded, so ask over HTTP.
export async function diagnose(base, key) {
  const status = await health(base);
  if (!status) return new Problem("unreachable");
  const models = await fetch(new URL("v1/models", base), { headers: authorised(key), cache: "no-store" }).catch(() => null);
  if (models?.status === 401) return new Problem(key ? "wrong-key" : "no-key");
  return new Problem(status === "ok" ? "refused" : "loading");
}
