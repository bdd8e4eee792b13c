/** Accounts for administrators: invite, role, disable, close; machines and their API keys. */
import { call, send } from "@shared/api/client";
import type { AccountState, ApiKey, KeyRequest, ManagedAccount } from "@shared/api/contract";
import { SelectField, TextField } from "@shared/components/form";
import { dateTime } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { go, href } from "@shared/router";
import { useState } from "preact/hooks";
import { Filters, useQuery } from "./filters";
import { type Action, Actions, Heading, PageLinks, Section, Shown, Status, Table } from "./parts";
import { say } from "./sentences";
import { Secret } from "./webhooks";

type Role = ManagedAccount["role"];
type Scope = KeyRequest["scopes"][number];

const PATH = "/accounts";
const ROLES: readonly Role[] = ["customer", "staff", "support", "finance", "admin"];
const SERVICE_ROLES = ["staff", "support", "finance"] as const;
const STATES: readonly AccountState[] = ["ACTIVE", "DISABLED", "CLOSED"];
const SCOPES = ["admin", "cart", "catalog", "orders", "settlements"].flatMap(
  (group) => [`${group}:read`, `${group}:write`] as Scope[],
);
const CREATIONS: readonly Action[] = [
  {
    name: "invite",
    label: "invite",
    confirmation: "confirmInvite",
    fields: (
      <>
        <TextField name="email" label={say("email")} type="email" required />
        <TextField name="name" label={say("name")} required />
        <Choice name="role" of={ROLES} />
        <Choice name="language" of={["ko", "en"]} />
      </>
    ),
    send: ({ email = "", name = "", role, language }, idempotencyKey) =>
      call("POST /admin/users", {
        body: { email, name, role: role as Role, language: language as "ko" | "en" },
        idempotencyKey,
      }),
  },
  {
    name: "create service account",
    label: "newService",
    confirmation: "confirmNewService",
    fields: (
      <>
        <TextField name="name" label={say("name")} hint={say("serviceHint")} pattern="[a-z][a-z0-9\-]{1,39}" required />
        <Choice name="role" of={SERVICE_ROLES} />
      </>
    ),
    send: ({ name = "", role }, idempotencyKey) =>
      call("POST /admin/service-accounts", {
        body: { name, role: role as (typeof SERVICE_ROLES)[number] },
        idempotencyKey,
      }),
  },
];

function Choice({ name, of, value = "" }: { name: "role" | "language"; of: readonly string[]; value?: string }) {
  return (
    <SelectField name={name} label={say(name)} value={value || of[0]!}>
      {of.map((each) => <option key={each} value={each}>{each}</option>)}
    </SelectField>
  );
}

export function Accounts() {
  const query = useQuery<Record<string, string> & { role?: Role; state?: AccountState }>();
  const accounts = useLoaded(
    (signal) => send("GET /admin/users", { query, signal }),
    [JSON.stringify(query)],
  );
  const created = (account: unknown) => go(href(`${PATH}/${(account as ManagedAccount).id}`));
  return (
    <div class="stack">
      <Heading title={say("userAccounts")}><Actions of={CREATIONS} done={created} /></Heading>
      <Filters path={PATH} names={["email", "role", "state"]}>
        <TextField name="email" label={say("email")} value={query.email ?? ""} />
        <SelectField name="role" label={say("role")} value={query.role ?? ""}>
          <option value="">{say("any")}</option>
          {ROLES.map((each) => <option key={each} value={each}>{each}</option>)}
        </SelectField>
        <SelectField name="state" label={say("status")} value={query.state ?? ""}>
          <option value="">{say("any")}</option>
          {STATES.map((each) => <option key={each} value={each}>{each}</option>)}
        </SelectField>
      </Filters>
      <Shown of={accounts}>
        {({ data, next }) => (
          <>
            <div class="card">
              <Table
                of={data}
                label={say("userAccounts")}
                id={(row) => row.id}
                columns={[
                  { label: "actorId", cell: (row) => <a href={href(`${PATH}/${row.id}`)}>{row.id}</a> },
                  { label: "name", cell: (row) => row.name },
                  { label: "email", cell: (row) => row.email },
                  { label: "role", cell: (row) => row.role },
                  { label: "status", cell: (row) => <Status of={row.state} /> },
                  { label: "since", cell: (row) => dateTime(row.createdAt) },
                ]}
              />
            </div>
            <PageLinks path={PATH} query={query} next={next} />
          </>
        )}
      </Shown>
    </div>
  );
}

export function AccountPage({ id }: { id: string }) {
  const account = useLoaded(
    (signal) => send("GET /admin/users/{userId}", { path: { userId: id }, signal }),
    [id],
  );
  return (
    <Shown of={account}>
      {({ data: of, headers }) => (
        <div class="stack">
          <a href={href(PATH)}>← {say("userAccounts")}</a>
          <Heading title={<>{of.name} <Status of={of.state} /></>}>
            <Actions
              of={of.state === "CLOSED" ? [] : actionsOn(of, headers.get("etag") ?? "")}
              done={account.reload}
              outdated={account.reload}
            />
          </Heading>
          <Section title={say("account")}>
            <dl class="facts">
              <dt>{say("actorId")}</dt><dd>{of.id}</dd>
              <dt>{say("email")}</dt><dd>{of.email} {of.emailVerified && "✓"}</dd>
              <dt>{say("role")}</dt><dd>{of.role}</dd>
              <dt>{say("language")}</dt><dd>{of.language}</dd>
              <dt>{say("since")}</dt><dd>{dateTime(of.createdAt)}</dd>
            </dl>
            <div class="actions">
              {!of.service && <a class="button quiet" href={href(`/customers/${of.id}`)}>{say("ordersAndSessions")}</a>}
              <a class="button quiet" href={href("/audit-log", { actorId: of.id })}>{say("auditLog")}</a>
            </div>
          </Section>
          {of.service && <ApiKeys of={of} />}
        </div>
      )}
    </Shown>
  );
}

function actionsOn(account: ManagedAccount, ifMatch: string): Action[] {
  const path = { userId: account.id };
  const isActive = account.state === "ACTIVE";
  const found: Action[] = [
    {
      name: `role of ${account.id}`,
      label: "changeRole",
      confirmation: "confirmRole",
      fields: <Choice name="role" of={account.service ? SERVICE_ROLES : ROLES} value={account.role} />,
      send: ({ role }, idempotencyKey) =>
        call("PATCH /admin/users/{userId}", { path, body: { role: role as Role }, ifMatch, idempotencyKey }),
    },
    {
      name: `state of ${account.id}`,
      label: isActive ? "disable" : "enable",
      confirmation: isActive ? "confirmDisable" : "confirmEnable",
      danger: isActive,
      send: (_, idempotencyKey) =>
        call("PATCH /admin/users/{userId}", {
          path,
          body: { state: isActive ? "DISABLED" : "ACTIVE" },
          ifMatch,
          idempotencyKey,
        }),
    },
  ];
  if (account.role === "customer") {
    found.push({
      name: `close ${account.id}`,
      label: "closeAccount",
      confirmation: "confirmClose",
      danger: true,
      send: (_, idempotencyKey) => call("DELETE /admin/users/{userId}", { path, idempotencyKey }),
    });
  }
  return found;
}

function ApiKeys({ of }: { of: ManagedAccount }) {
  const query = useQuery();
  const path = { userId: of.id };
  const keys = useLoaded(
    (signal) => send("GET /admin/users/{userId}/api-keys", { path, query, signal }),
    [of.id, JSON.stringify(query)],
  );
  const [secret, show] = useState<string | null>(null);
  const done = (result: unknown) => {
    show((result as { key?: string } | undefined)?.key ?? null);
    keys.reload();
  };
  const create: Action = {
    name: `create key of ${of.id}`,
    label: "newKey",
    confirmation: "confirmNewKey",
    fields: <KeyFields />,
    send: (values) =>
      call("POST /admin/users/{userId}/api-keys", {
        path,
        body: { scopes: SCOPES.filter((each) => `scope ${each}` in values), days: Number(values.days) },
      }),
  };
  return (
    <Section title={say("apiKeys")}>
      {of.state === "ACTIVE" && <Actions of={[create]} done={done} />}
      <Secret of={secret} />
      <Shown of={keys}>
        {({ data, next }) => (
          <>
            <Table
              of={data}
              label={say("apiKeys")}
              id={(row) => row.id}
              columns={[
                { label: "apiKey", cell: (row) => <span class="mono">{row.prefix}…</span> },
                { label: "scopes", cell: (row) => row.scopes.join(", ") },
                { label: "until", cell: (row) => dateTime(row.endedAt ?? row.expiresAt) },
                { label: "lastUsed", cell: (row) => (row.lastUsedAt ? dateTime(row.lastUsedAt) : "") },
                { label: "actions", cell: (row) => !row.endedAt && <Actions of={actionsOnKey(of, row)} done={done} /> },
              ]}
            />
            <PageLinks path={`${PATH}/${of.id}`} query={query} next={next} />
          </>
        )}
      </Shown>
    </Section>
  );
}

function KeyFields() {
  return (
    <>
      <fieldset class="stack tight">
        <legend>{say("scopes")}</legend>
        {SCOPES.map((each) => (
          <label key={each} class="row">
            <input type="checkbox" name={`scope ${each}`} /> <span class="mono">{each}</span>
          </label>
        ))}
      </fieldset>
      <TextField name="days" label={say("days")} type="number" min={1} max={365} value={90} required />
    </>
  );
}

function actionsOnKey(account: ManagedAccount, { id }: ApiKey): Action[] {
  const path = { userId: account.id, keyId: id };
  return [
    {
      name: `rotate key ${id}`,
      label: "rotate",
      confirmation: "confirmRotate",
      send: () => call("POST /admin/users/{userId}/api-keys/{keyId}/rotate", { path, body: {} }),
    },
    {
      name: `end key ${id}`,
      label: "endKey",
      confirmation: "confirmEndKey",
      danger: true,
      send: (_, idempotencyKey) =>
        call("DELETE /admin/users/{userId}/api-keys/{keyId}", { path, idempotencyKey }),
    },
  ];
}
