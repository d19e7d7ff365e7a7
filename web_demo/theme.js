// Before anything is drawn: the appearance that was chosen here, or the system's.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("vivavoce-theme");
  } catch {
    // The browser keeps nothing.
  }
  const dark = chosen === null ? matchMedia("(prefers-color-scheme: dark)").matches : chosen === "dark";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}
