/** What surrounds the pages of every application: a skip link, language, theme, messages. */
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { chooseLanguage, language, LANGUAGES } from "../i18n";
import { place } from "../router";
import { say } from "../sentences";
import { switchTheme, theme } from "../theme";
import { IconButton } from "./basic";

export function SkipLink() {
  const skip = (event: Event) => {
    event.preventDefault();
    document.getElementById("main")?.focus();
  };
  return <a class="skip" href="#main" onClick={skip}>{say("skip")}</a>;
}

export function LanguagePicker() {
  const other = language.value === "ko" ? "en" : "ko";
  return (
    <button
      type="button"
      class="icon-button text"
      lang={other}
      title={LANGUAGES[other]}
      onClick={() => chooseLanguage(other)}
    >
      <span class="visually-hidden">{LANGUAGES[other]}</span>
      <span aria-hidden="true">{other === "en" ? "EN" : "한"}</span>
    </button>
  );
}

export function ThemePicker() {
  const isDark = theme.value === "dark";
  return (
    <IconButton
      icon={isDark ? "sun" : "moon"}
      label={say(isDark ? "toLight" : "toDark")}
      onClick={switchTheme}
    />
  );
}

/** The page: it gets the focus and the title when the address changes, as a new document would. */
export function Main({ title, children }: { title: string; children: ComponentChildren }) {
  const main = useRef<HTMLElement>(null);
  const path = place.value.path;
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = title;
  }, [title]);
  useEffect(() => {
    if (isFirst.current) {
      isFirst.current = false;
      return;
    }
    scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [path]);
  return <main id="main" ref={main} tabIndex={-1}>{children}</main>;
}

const messages = signal<readonly { id: number; text: string }[]>([]);
let last = 0;

/** Shows a message for a few seconds; screen readers read it. */
export function announce(text: string): void {
  const id = ++last;
  messages.value = [...messages.value, { id, text }];
  setTimeout(() => (messages.value = messages.value.filter((each) => each.id !== id)), 5000);
}

export function Messages() {
  return (
    <div class="messages" role="status" aria-live="polite">
      {messages.value.map(({ id, text }) => <p key={id}>{text}</p>)}
    </div>
  );
}
