// The transcript as a file to keep: text for people, JSON for programs. Pure.

const NAMES = { you: "You", agent: "Vivavoce", tool: "Function", note: "Note" };

export function transcriptText(entries) {
  return entries.map((entry) => `${NAMES[entry.who]}: ${line(entry)}\n`).join("\n");
}

export function transcriptJson(entries) {
  const kept = entries.map(({ who, text, unheard, cut, name, argumentsText, latency }) => ({
    who,
    ...(who === "tool" && { name, arguments: argumentsText }),
    text: text.trim(),
    ...(cut && { interrupted: true, unheard: unheard.trim() }),
    ...(latency && { latency_ms: latency.ms, stages_ms: Object.fromEntries(latency.stages) }),
  }));
  return `${JSON.stringify(kept, null, 2)}\n`;
}

function line({ who, text, unheard, cut, name, argumentsText }) {
  if (who === "tool") return `${name}(${argumentsText}) = ${text}`;
  if (!cut) return text.trim();
  return `${text.trim()} [interrupted${unheard.trim() ? `; not heard: ${unheard.trim()}` : ""}]`;
}
