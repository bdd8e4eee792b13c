/** Webhooks: subscriptions, their secrets, a test, and deliveries with their attempts. */
import { call, send } from "@shared/api/client";
import type { NewWebhook, TestResult, Webhook } from "@shared/api/contract";
import { Notice } from "@shared/components/basic";
import { SelectField, TextField } from "@shared/components/form";
import { dateTime } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { go, href, place } from "@shared/router";
import { useState } from "preact/hooks";
import { changesOf, momentOf } from "./fields";
import { Filters, useQuery } from "./filters";
import { type Action, Actions, Heading, PageLinks, Section, Shown, Status, Table, type Values } from "./parts";
import { say } from "./sentences";

type EventType = NewWebhook["eventTypes"][number];

const PATH = "/webhooks";
const TYPES: readonly EventType[] = [
  "order.paid",
  "order.cancelling",
  "order.cancelled",
  "order.refunded",
  "payment.captured",
  "payment.declined",
  "refund.succeeded",
  "refund.rejected",
  "shipment.created",
  "shipment.shipped",
  "shipment.delivered",
  "return.requested",
  "return.approved",
  "return.rejected",
  "return.received",
];
const CREATE: Action = {
  name: "create webhook",
  label: "newWebhook",
  confirmation: "confirmNewWebhook",
  fields: <WebhookFields />,
  send: (values) => call("POST /admin/webhooks", { body: webhookOf(values) }),
};

export function Webhooks() {
  const webhooks = useLoaded((signal) => call("GET /admin/webhooks", { signal }), []);
  const [secret, show] = useState<string | null>(null);
  const created = (webhook: unknown) => {
    show((webhook as { secret: string }).secret);
    webhooks.reload();
  };
  return (
    <div class="stack">
      <Heading title={say("webhooks")}><Actions of={[CREATE]} done={created} /></Heading>
      <Secret of={secret} />
      <Shown of={webhooks}>
        {(data) => (
          <div class="card">
            <Table
              of={data}
              label={say("webhooks")}
              id={(row) => row.id}
              columns={[
                { label: "url", cell: (row) => <a href={href(`${PATH}/${row.id}`)}>{row.url}</a> },
                { label: "status", cell: (row) => <Status of={row.state} /> },
                { label: "types", cell: (row) => <span class="small">{row.eventTypes.join(", ")}</span> },
                { label: "since", cell: (row) => dateTime(row.createdAt) },
              ]}
            />
          </div>
        )}
      </Shown>
    </div>
  );
}

/** A secret that no other response shows. */
export function Secret({ of }: { of: string | null }) {
  if (of === null) return null;
  return (
    <Notice tone="warn" title={say("secretOnce")}>
      <code class="secret">{of}</code>
    </Notice>
  );
}

export function WebhookPage({ id }: { id: string }) {
  const eventId = place.value.segments[2];
  return eventId ? <DeliveryPage id={id} eventId={eventId} /> : <Subscription id={id} />;
}

function Subscription({ id }: { id: string }) {
  const webhook = useLoaded(
    (signal) => send("GET /admin/webhooks/{webhookId}", { path: { webhookId: id }, signal }),
    [id],
  );
  const [result, show] = useState<unknown>(null);
  const done = (given: unknown) => {
    if (given === undefined) go(href(PATH));
    show(given);
    webhook.reload();
  };
  return (
    <Shown of={webhook}>
      {({ data: of, headers }) => (
        <div class="stack">
          <a href={href(PATH)}>← {say("webhooks")}</a>
          <Heading title={<>{of.url} <Status of={of.state} /></>}>
            <Actions of={actionsOn(of, headers.get("etag") ?? "")} done={done} outdated={webhook.reload} />
          </Heading>
          <Result of={result} />
          <Section title={say("webhook")}>
            <dl class="facts">
              <dt>{say("types")}</dt><dd>{of.eventTypes.join(", ")}</dd>
              <dt>{say("since")}</dt><dd>{dateTime(of.createdAt)}</dd>
              {of.disabledBy && <><dt>{say("disabledBy")}</dt><dd>{of.disabledBy}</dd></>}
              {of.failingSince && <><dt>{say("failingSince")}</dt><dd>{dateTime(of.failingSince)}</dd></>}
              {of.previousSecretValidUntil && (
                <><dt>{say("previousSecret")}</dt><dd>{dateTime(of.previousSecretValidUntil)}</dd></>
              )}
            </dl>
          </Section>
          <DeliveryList id={id} />
        </div>
      )}
    </Shown>
  );
}

/** What an action returned: a new secret, the response to a test, or how much is sent again. */
function Result({ of }: { of: unknown }) {
  if (typeof of !== "object" || of === null) return null;
  if ("secret" in of) return <Secret of={String(of.secret)} />;
  if ("delivered" in of) return <TestNotice of={of as TestResult} />;
  if ("deliveries" in of) return <Notice tone="good" title={say("sentAgain", { count: Number(of.deliveries) })} />;
  return null;
}

function TestNotice({ of }: { of: TestResult }) {
  const outcome = of.status === null ? of.error : `HTTP ${of.status}`;
  return (
    <Notice tone={of.delivered ? "good" : "bad"} title={`${say("test")}: ${outcome} · ${of.milliseconds} ms`}>
      <pre class="mono small">{of.responseHead}</pre>
    </Notice>
  );
}

function actionsOn(webhook: Webhook, ifMatch: string): Action[] {
  const path = { webhookId: webhook.id };
  const isActive = webhook.state === "ACTIVE";
  return [
    {
      name: `edit webhook ${webhook.id}`,
      label: "edit",
      confirmation: "confirmEditWebhook",
      fields: <WebhookFields of={webhook} />,
      send: (values, idempotencyKey) =>
        call("PATCH /admin/webhooks/{webhookId}", {
          path,
          body: changesOf({ url: webhook.url, eventTypes: webhook.eventTypes }, webhookOf(values)),
          ifMatch,
          idempotencyKey,
        }),
    },
    {
      name: `switch webhook ${webhook.id}`,
      label: isActive ? "disable" : "enable",
      confirmation: isActive ? "confirmDisableWebhook" : "confirmEnableWebhook",
      danger: isActive,
      send: (_, idempotencyKey) =>
        call("PATCH /admin/webhooks/{webhookId}", {
          path,
          body: { state: isActive ? "DISABLED" : "ACTIVE" },
          ifMatch,
          idempotencyKey,
        }),
    },
    {
      name: `test webhook ${webhook.id}`,
      label: "test",
      confirmation: "confirmTest",
      send: () => call("POST /admin/webhooks/{webhookId}/test", { path }),
    },
    {
      name: `redeliver to webhook ${webhook.id}`,
      label: "redeliver",
      confirmation: "confirmRange",
      fields: <RangeFields />,
      send: ({ fromTime, toTime, includeDelivered }, idempotencyKey) =>
        call("POST /admin/webhooks/{webhookId}/redeliveries", {
          path,
          body: {
            fromTime: momentOf(fromTime) ?? "",
            toTime: momentOf(toTime) ?? "",
            includeDelivered: includeDelivered === "true",
          },
          idempotencyKey,
        }),
    },
    {
      name: `secret of webhook ${webhook.id}`,
      label: "newSecret",
      confirmation: "confirmNewSecret",
      send: () => call("POST /admin/webhooks/{webhookId}/secret", { path, body: {}, ifMatch }),
    },
    {
      name: `delete webhook ${webhook.id}`,
      label: "remove",
      confirmation: "confirmDeleteWebhook",
      danger: true,
      send: () => call("DELETE /admin/webhooks/{webhookId}", { path }),
    },
  ];
}

function WebhookFields({ of }: { of?: Webhook }) {
  return (
    <>
      <TextField name="url" label={say("url")} type="url" value={of?.url ?? ""} maxLength={2000} required />
      <fieldset class="stack tight">
        <legend>{say("types")}</legend>
        {TYPES.map((type) => (
          <label key={type} class="row">
            <input type="checkbox" name={`type ${type}`} checked={of?.eventTypes.includes(type) ?? false} />
            <span class="mono">{type}</span>
          </label>
        ))}
      </fieldset>
    </>
  );
}

function webhookOf(values: Values) {
  return { url: values.url ?? "", eventTypes: TYPES.filter((type) => `type ${type}` in values) };
}

function RangeFields() {
  return (
    <>
      <TextField name="fromTime" label={say("since")} type="datetime-local" required />
      <TextField name="toTime" label={say("until")} type="datetime-local" required />
      <label class="row"><input type="checkbox" name="includeDelivered" value="true" /> {say("includeDelivered")}</label>
    </>
  );
}

function DeliveryList({ id }: { id: string }) {
  const query = useQuery<Record<string, string> & { state?: "PENDING" | "DELIVERED" | "FAILED" }>();
  const path = `${PATH}/${id}`;
  const deliveries = useLoaded(
    (signal) => send("GET /admin/webhooks/{webhookId}/deliveries", { path: { webhookId: id }, query, signal }),
    [id, JSON.stringify(query)],
  );
  return (
    <Section title={say("deliveries")}>
      <Filters path={path} names={["state"]}>
        <SelectField name="state" label={say("status")} value={query.state ?? ""}>
          <option value="">{say("any")}</option>
          {(["PENDING", "DELIVERED", "FAILED"] as const).map((each) => <option key={each} value={each}>{each}</option>)}
        </SelectField>
      </Filters>
      <Shown of={deliveries}>
        {({ data, next }) => (
          <>
            <Table
              of={data}
              label={say("deliveries")}
              id={(row) => row.eventId}
              columns={[
                { label: "event", cell: (row) => <a class="mono" href={href(`${path}/${row.eventId}`)}>{row.type}</a> },
                { label: "status", cell: (row) => <Status of={row.state} /> },
                { label: "attempts", number: true, cell: (row) => row.attempts },
                { label: "at", cell: (row) => dateTime(row.createdAt) },
                { label: "nextTry", cell: (row) => (row.nextTryAt ? dateTime(row.nextTryAt) : "") },
              ]}
            />
            <PageLinks path={path} query={query} next={next} />
          </>
        )}
      </Shown>
    </Section>
  );
}

function DeliveryPage({ id, eventId }: { id: string; eventId: string }) {
  const path = { webhookId: id, eventId };
  const delivery = useLoaded(
    (signal) => call("GET /admin/webhooks/{webhookId}/deliveries/{eventId}", { path, signal }),
    [id, eventId],
  );
  const again: Action = {
    name: `redeliver ${eventId} to ${id}`,
    label: "redeliver",
    confirmation: "confirmRedeliver",
    send: (_, idempotencyKey) =>
      call("POST /admin/webhooks/{webhookId}/deliveries/{eventId}/redelivery", { path, idempotencyKey }),
  };
  return (
    <Shown of={delivery}>
      {(of) => (
        <div class="stack">
          <a href={href(`${PATH}/${id}`)}>← {say("deliveries")}</a>
          <Heading title={<><span class="mono">{of.type}</span> <Status of={of.state} /></>}>
            <Actions of={[again]} done={delivery.reload} />
          </Heading>
          <Section title={say("attempts")}>
            <Table
              of={of.log}
              label={say("attempts")}
              id={(row) => row.number}
              columns={[
                { label: "at", cell: (row) => dateTime(row.at) },
                { label: "status", cell: (row) => row.status ?? row.error },
                { label: "milliseconds", number: true, cell: (row) => row.milliseconds },
                { label: "request", cell: (row) => <pre class="mono small">{row.requestHead}</pre> },
                { label: "response", cell: (row) => <pre class="mono small">{row.responseHead}</pre> },
              ]}
            />
          </Section>
        </div>
      )}
    </Shown>
  );
}
