// Small helpers for modules that touch the document. Text goes in as text, whoever wrote it.

export const byId = (id) => document.getElementById(id);

// Only where it is another: what is set anew is read out anew.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}
