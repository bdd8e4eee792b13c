/** The account: profile, password, sessions, export and closing. */
import { call, send } from "@shared/api/client";
import { submit } from "@shared/api/submissions";
import { Badge, Button, ErrorNotice, Loading, Notice } from "@shared/components/basic";
import { Dialog } from "@shared/components/dialog";
import { announce, Main } from "@shared/components/frame";
import { Form, SelectField, SendingError, TextField, useSending, Username } from "@shared/components/form";
import { chooseLanguage, dateTime, LANGUAGES, type Language } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { go, href } from "@shared/router";
import { saveFile } from "@shared/save-file";
import { account, forget, logOut } from "@shared/session";
import { say } from "@shared/sentences";
import { useState } from "preact/hooks";
import { AddressBook } from "./addresses";
import { text } from "./sentences";

export function AccountPage() {
  const sending = useSending();
  const signOut = () =>
    sending.run(async () => {
      await logOut();
      go(href("/"));
    });
  return (
    <Main title={text("account")}>
      <header class="row between">
        <h1>{text("account")}</h1>
        <div class="actions">
          <a class="button" href={href("/orders")}>{text("orders")}</a>
          <Button busy={sending.busy} onClick={() => void signOut()}>{text("signOut")}</Button>
        </div>
      </header>
      <SendingError sending={sending} />
      <div class="columns">
        <Profile />
        <AddressBook />
        <Password />
        <Sessions />
        <Data />
      </div>
    </Main>
  );
}

function Profile() {
  const sending = useSending();
  const mail = useSending();
  const me = account.value!;
  const save = async (values: Record<string, string>) => {
    const current = await send("GET /users/me", {});
    const body = { name: values.name!, language: values.language as Language };
    account.value = await submit("profile", body, (idempotencyKey) =>
      call("PATCH /users/me", { body, idempotencyKey, ifMatch: current.headers.get("etag") ?? "*" }),
    );
    chooseLanguage(body.language);
    announce(text("saved"));
  };
  const verify = () =>
    mail.run(async () => {
      await call("POST /users/me/email-verification", {});
      announce(text("sent"));
    });
  return (
    <section class="card stack">
      <h2>{text("profile")}</h2>
      <p class="muted">{me.email}</p>
      {!me.emailVerified && (
        <Notice tone="warn" title={text("unverified")}>
          <Button busy={mail.busy} onClick={() => void verify()}>{text("sendAgain")}</Button>
          <SendingError sending={mail} />
        </Notice>
      )}
      <Form sending={sending} label={say("save")} onSend={save}>
        <TextField
          label={text("name")}
          name="name"
          autocomplete="name"
          maxLength={100}
          value={me.name}
          error={sending.errorOf("name")}
          required
        />
        <SelectField label={say("language")} name="language" value={me.language}>
          {Object.entries(LANGUAGES).map(([code, name]) => (
            <option key={code} value={code} selected={code === me.language}>{name}</option>
          ))}
        </SelectField>
      </Form>
    </section>
  );
}

function Password() {
  const sending = useSending();
  const [count, setCount] = useState(0);
  const change = async (values: Record<string, string>) => {
    await call("POST /users/me/password", {
      body: { currentPassword: values.currentPassword!, newPassword: values.newPassword! },
    });
    setCount(count + 1);
    announce(text("saved"));
  };
  return (
    <section class="card stack">
      <h2>{text("changePassword")}</h2>
      <Form key={count} sending={sending} label={text("changePassword")} onSend={change}>
        <Username email={account.value!.email} />
        <TextField
          label={text("currentPassword")}
          name="currentPassword"
          type="password"
          autocomplete="current-password"
          required
        />
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
    </section>
  );
}

function Sessions() {
  const loaded = useLoaded((signal) => call("GET /users/me/sessions", { signal }), []);
  const sending = useSending();
  const end = (sessionId: string) =>
    sending.run(async () => {
      await submit("session", sessionId, (idempotencyKey) =>
        call("DELETE /users/me/sessions/{sessionId}", { path: { sessionId }, idempotencyKey }),
      );
      loaded.reload();
    });
  const endOthers = () =>
    sending.run(async () => {
      await submit("sessions", null, (idempotencyKey) =>
        call("DELETE /users/me/sessions", { idempotencyKey }),
      );
      loaded.reload();
    });
  return (
    <section class="card stack">
      <h2>{text("sessions")}</h2>
      {loaded.error !== undefined && <ErrorNotice error={loaded.error} retry={loaded.reload} />}
      {loaded.data === undefined && loaded.error === undefined && <Loading />}
      <ul class="stack tight">
        {loaded.data?.map((session) => (
          <li class="row between" key={session.id}>
            <span>{text("lastUsed", { time: dateTime(session.renewedAt) })}</span>
            {session.current ? (
              <Badge tone="good">{text("thisSession")}</Badge>
            ) : (
              <Button kind="quiet" onClick={() => void end(session.id)}>{text("end")}</Button>
            )}
          </li>
        ))}
      </ul>
      <SendingError sending={sending} />
      {(loaded.data?.length ?? 0) > 1 && (
        <Button busy={sending.busy} onClick={() => void endOthers()}>{text("endOthers")}</Button>
      )}
    </section>
  );
}

function Data() {
  const sending = useSending();
  const closing = useSending();
  const [isOpen, setOpen] = useState(false);
  const download = () =>
    sending.run(async () => {
      const data = await call("POST /users/me/export", {});
      saveFile("my-data.json", JSON.stringify(data, null, 2), "application/json");
    });
  const close = async ({ password }: Record<string, string>) => {
    await call("DELETE /users/me", { body: { password: password! } });
    forget();
    go(href("/"));
  };
  return (
    <section class="card stack">
      <h2>{text("exportData")}</h2>
      <p class="muted">{text("exportHint")}</p>
      <Button busy={sending.busy} onClick={() => void download()}>{text("exportData")}</Button>
      <SendingError sending={sending} />
      <hr />
      <h2>{text("closeAccount")}</h2>
      <p class="muted">{text("closeHint")}</p>
      <Button kind="danger" onClick={() => setOpen(true)}>{text("closeAccount")}</Button>
      {isOpen && (
        <Dialog title={text("closeAccount")} onClose={() => setOpen(false)}>
          <Form sending={closing} kind="danger" label={text("closeAccount")} onSend={close}>
            <Username email={account.value!.email} />
            <p>{text("closeHint")}</p>
            <TextField
              label={text("password")}
              name="password"
              type="password"
              autocomplete="current-password"
              required
            />
          </Form>
        </Dialog>
      )}
    </section>
  );
}
