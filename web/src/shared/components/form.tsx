/** Fields of forms, and a form that sends once and shows the API's answer beside its fields. */
import type { ComponentChildren, TargetedEvent } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { ApiError, isUnanswered } from "../api/client";
import { say } from "../sentences";
import { Button, ErrorNotice, Notice } from "./basic";

interface Described {
  label: ComponentChildren;
  hint?: ComponentChildren;
  error?: string | undefined;
}

function Frame({
  id,
  label,
  hint,
  error,
  required,
  children,
}: Described & { id: string; required: boolean; children: ComponentChildren }) {
  return (
    <div class={`field ${error ? "invalid" : ""}`}>
      <label for={id}>
        {label}
        {required && <span class="required" aria-hidden="true">*</span>}
      </label>
      {children}
      {hint && <p class="hint" id={`${id}-hint`}>{hint}</p>}
      {error && <p class="error" id={`${id}-error`}>{error}</p>}
    </div>
  );
}

function described(id: string, { hint, error }: Described): Record<string, string | boolean> {
  const by = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  return { ...(by ? { "aria-describedby": by } : {}), ...(error ? { "aria-invalid": true } : {}) };
}

interface Control {
  name: string;
  required?: boolean;
  disabled?: boolean;
  autocomplete?: string;
}

interface Input extends Control {
  type?: "date" | "datetime-local" | "email" | "month" | "number" | "password" | "search" | "tel" | "text" | "url";
  value?: string | number;
  placeholder?: string;
  inputMode?: "decimal" | "email" | "numeric" | "search" | "tel" | "text" | "url";
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  min?: string | number;
  max?: string | number;
  step?: number;
  onInput?: (value: string) => void;
}

/** A line of text; without `onInput`, `value` is what it has at first, and typed text stays. */
export function TextField({ label, hint, error, onInput, value, ...input }: Described & Input) {
  const id = useId();
  const content = onInput ? { value } : { defaultValue: value };
  return (
    <Frame {...{ id, label, hint, error }} required={input.required === true}>
      <input
        id={id}
        type="text"
        {...(input as Control)}
        {...(value === undefined ? {} : content)}
        {...described(id, { label, hint, error })}
        onInput={(event) => onInput?.(event.currentTarget.value)}
      />
    </Frame>
  );
}

/** The account of a form that asks for a password only, for password managers; it is not shown. */
export function Username({ email }: { email: string }) {
  return <input type="text" name="username" autocomplete="username" value={email} readOnly hidden />;
}

interface Area extends Control {
  value?: string;
  maxLength?: number;
  rows?: number;
}

export function TextArea({ label, hint, error, value, ...area }: Described & Area) {
  const id = useId();
  return (
    <Frame {...{ id, label, hint, error }} required={area.required === true}>
      <textarea id={id} rows={3} defaultValue={value ?? ""} {...area} {...described(id, { label, hint, error })} />
    </Frame>
  );
}

interface Choice extends Control {
  value?: string;
  onInput?: (value: string) => void;
  children: ComponentChildren;
}

export function SelectField({
  label,
  hint,
  error,
  onInput,
  children,
  ...select
}: Described & Choice) {
  const id = useId();
  return (
    <Frame {...{ id, label, hint, error }} required={select.required === true}>
      <select
        id={id}
        {...select}
        {...described(id, { label, hint, error })}
        onInput={(event) => onInput?.(event.currentTarget.value)}
      >
        {children}
      </select>
    </Frame>
  );
}

export interface Sending {
  busy: boolean;
  error: unknown;
  /** The API's message of a field, by its name in the body. */
  errorOf: (field: string) => string | undefined;
  run: (send: () => Promise<void>) => Promise<void>;
}

/** Runs one submission at a time and keeps its error. */
export function useSending(): Sending {
  const [state, change] = useState<{ busy: boolean; error?: unknown }>({ busy: false });
  const isBusy = useRef(false);
  return {
    busy: state.busy,
    error: state.error,
    errorOf: (field) => (state.error instanceof ApiError ? state.error.fields[field] : undefined),
    run: async (send) => {
      if (isBusy.current) return;
      isBusy.current = true;
      change({ busy: true });
      try {
        await send();
        change({ busy: false });
      } catch (error) {
        change({ busy: false, error });
      } finally {
        isBusy.current = false;
      }
    },
  };
}

export function SendingError({ sending }: { sending: Sending }) {
  const { error } = sending;
  if (error === undefined) return null;
  return (
    <>
      <ErrorNotice error={error} />
      {isUnanswered(error) && <Notice tone="warn">{say("unanswered")}</Notice>}
    </>
  );
}

/** A form; `onSend` gets the texts of its fields by name, and the first rejected field the focus. */
export function Form({
  sending,
  label,
  kind = "primary",
  onSend,
  children,
  secondary,
}: {
  sending: Sending;
  label: string;
  kind?: "primary" | "danger";
  onSend: (values: Record<string, string>) => Promise<void>;
  children: ComponentChildren;
  secondary?: ComponentChildren;
}) {
  const onSubmit = (event: TargetedEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const values = Object.fromEntries([...data].map(([name, value]) => [name, String(value)]));
    void sending.run(() => onSend(values));
  };
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => {
    form.current?.querySelector<HTMLElement>("[aria-invalid='true']")?.focus();
  }, [sending.error]);
  return (
    <form class="form" ref={form} onSubmit={onSubmit}>
      {children}
      <SendingError sending={sending} />
      <div class="actions">
        <Button type="submit" kind={kind} busy={sending.busy}>{label}</Button>
        {secondary}
      </div>
    </form>
  );
}
