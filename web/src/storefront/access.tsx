/** Sign in, create an account, and the pages to which links in mails lead. */
import { ApiError, call } from "@shared/api/client";
import { submit } from "@shared/api/submissions";
import { ErrorNotice, Loading, Notice } from "@shared/components/basic";
import { Main } from "@shared/components/frame";
import { Form, TextField, useSending } from "@shared/components/form";
import { logIn } from "@shared/session";
import { useLoaded } from "@shared/load";
import { go, href, place } from "@shared/router";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { mergeGuestLines } from "./cart";
import { text } from "./sentences";

/** Where to go after signing in: a page of the shop. */
function destination(): string {
  const next = place.value.query.get("next") ?? "/";
  return `#${next.startsWith("/") ? next : "/"}`;
}

/** Goes to the page that needed an account, unless the person has opened another one meanwhile. */
function leave(opened: string): void {
  if (location.hash === opened) go(destination(), "replace");
}

function Narrow({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <Main title={title}>
      <div class="narrow card stack">
        <h1>{title}</h1>
        {children}
      </div>
    </Main>
  );
}

export function SignIn() {
  const sending = useSending();
  const [needsCode, setNeedsCode] = useState(false);
  const next = place.value.query.get("next") ?? undefined;
  const signIn = async (values: Record<string, string>) => {
    const opened = location.hash;
    try {
      await logIn(values.email!, values.password!, values.code);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "SECOND_FACTOR_REQUIRED") throw error;
      setNeedsCode(true);
      return;
    }
    await mergeGuestLines().catch(() => undefined);
    leave(opened);
  };
  return (
    <Narrow title={text("signIn")}>
      {next === "/checkout" && <Notice>{text("guest")}</Notice>}
      <Form
        sending={sending}
        label={text("signIn")}
        onSend={signIn}
        secondary={<a href={href("/reset")}>{text("forgot")}</a>}
      >
        <TextField label={text("email")} name="email" type="email" autocomplete="username" required />
        <TextField
          label={text("password")}
          name="password"
          type="password"
          autocomplete="current-password"
          required
        />
        {needsCode && (
          <TextField
            label={text("code")}
            name="code"
            autocomplete="one-time-code"
            hint={text("codeHint")}
            required
          />
        )}
      </Form>
      <p class="muted">
        {text("noAccount")} <a href={href("/register", { next })}>{text("register")}</a>
      </p>
    </Narrow>
  );
}

export function Register() {
  const sending = useSending();
  const next = place.value.query.get("next") ?? undefined;
  const register = async ({ email, password, name }: Record<string, string>) => {
    const opened = location.hash;
    const body = { email: email!, password: password!, name: name! };
    // the password is no part of what is kept: only of what is compared
    await submit("register", [email, name, password!.length], (idempotencyKey) =>
      call("POST /users", { body, idempotencyKey, authenticated: false }),
    );
    await logIn(body.email, body.password);
    await mergeGuestLines().catch(() => undefined);
    leave(opened);
  };
  return (
    <Narrow title={text("register")}>
      <Form sending={sending} label={text("register")} onSend={register}>
        <TextField
          label={text("name")}
          name="name"
          autocomplete="name"
          maxLength={100}
          error={sending.errorOf("name")}
          required
        />
        <TextField
          label={text("email")}
          name="email"
          type="email"
          autocomplete="email"
          error={sending.errorOf("email")}
          required
        />
        <TextField
          label={text("password")}
          name="password"
          type="password"
          autocomplete="new-password"
          minLength={8}
          maxLength={128}
          hint={text("passwordHint")}
          error={sending.errorOf("password")}
          required
        />
      </Form>
      <p class="muted">
        {text("hasAccount")} <a href={href("/sign-in", { next })}>{text("signIn")}</a>
      </p>
    </Narrow>
  );
}

export function RequestReset() {
  const sending = useSending();
  const [isSent, setSent] = useState(false);
  const request = async ({ email }: Record<string, string>) => {
    await call("POST /auth/password-reset", { body: { email: email! }, authenticated: false });
    setSent(true);
  };
  return (
    <Narrow title={text("resetTitle")}>
      {isSent ? (
        <Notice tone="good">{text("resetSent")}</Notice>
      ) : (
        <Form sending={sending} label={text("resetSend")} onSend={request}>
          <TextField
            label={text("email")}
            name="email"
            type="email"
            autocomplete="username"
            hint={text("resetHint")}
            required
          />
        </Form>
      )}
    </Narrow>
  );
}

/** `/set-password#token=…`, from a mail. */
export function SetPassword({ token }: { token: string }) {
  const sending = useSending();
  const [isSet, setSet] = useState(false);
  const set = async ({ newPassword }: Record<string, string>) => {
    const body = { token, newPassword: newPassword! };
    await call("POST /auth/password-reset/confirm", { body, authenticated: false });
    setSet(true);
  };
  return (
    <Narrow title={text("setPassword")}>
      {isSet ? (
        <>
          <Notice tone="good">{text("passwordSet")}</Notice>
          <a class="button primary" href={`/${href("/sign-in")}`}>{text("signIn")}</a>
        </>
      ) : (
        <Form sending={sending} label={text("setPassword")} onSend={set}>
          <TextField
            label={text("newPassword")}
            name="newPassword"
            type="password"
            autocomplete="new-password"
            minLength={8}
            maxLength={128}
            hint={text("passwordHint")}
            error={sending.errorOf("newPassword")}
            required
          />
        </Form>
      )}
    </Narrow>
  );
}

/** `/verify-email#token=…`, from a mail. */
export function VerifyEmail({ token }: { token: string }) {
  const { error, isLoading, reload } = useLoaded(
    () => call("POST /auth/email-verification/confirm", { body: { token }, authenticated: false }),
    [token],
  );
  return (
    <Narrow title={text("verifyTitle")}>
      {isLoading && <Loading />}
      {error !== undefined && <ErrorNotice error={error} retry={reload} />}
      {!isLoading && error === undefined && (
        <>
          <Notice tone="good">{text("verified")}</Notice>
          <a class="button primary" href="/">{text("home")}</a>
        </>
      )}
    </Narrow>
  );
}
