/** Light or dark: that of the system until a person chooses. */
import { effect, signal } from "@preact/signals";

export type Theme = "light" | "dark";
const KEY = "theme";

const kept = localStorage.getItem(KEY);
const system = matchMedia("(prefers-color-scheme: dark)");
const chosen = signal<Theme | null>(kept === "light" || kept === "dark" ? kept : null);
export const theme = signal<Theme>("light");

function apply(): void {
  theme.value = chosen.value ?? (system.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme.value;
}

effect(apply);
system.addEventListener("change", apply);

export function switchTheme(): void {
  chosen.value = theme.value === "dark" ? "light" : "dark";
  localStorage.setItem(KEY, chosen.value);
}
