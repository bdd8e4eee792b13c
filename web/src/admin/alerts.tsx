/** What an operator must look at: why, what to do, and a note of what was done. */
import { call, send } from "@shared/api/client";
import type { Alert } from "@shared/api/contract";
import { SelectField, TextArea } from "@shared/components/form";
import { dateTime } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { Filters, useQuery } from "./filters";
import { Actions, PageLinks, Shown, Table } from "./parts";
import { say, type Sentence } from "./sentences";

const PATH = "/alerts";
/** What to do, by the beginning of the kind; docs/RUNBOOK.md has the details. */
const ADVICE: readonly (readonly [string, Sentence])[] = [
  ["dead_letter", "adviseDeadLetter"],
  ["ghost_", "adviseUnmatched"],
  ["overdue_", "adviseOverdue"],
  ["stuck_", "adviseStuck"],
  ["webhook_", "adviseWebhook"],
];

export function Alerts() {
  const query = useQuery<Record<string, string> & { state?: "OPEN" | "RESOLVED" }>();
  const alerts = useLoaded(
    (signal) => send("GET /admin/alerts", { query, signal }),
    [JSON.stringify(query)],
  );
  return (
    <div class="stack">
      <h1>{say("alerts")}</h1>
      <Filters path={PATH} names={["state"]}>
        <SelectField name="state" label={say("status")} value={query.state ?? "OPEN"}>
          <option value="OPEN">{say("open")}</option>
          <option value="RESOLVED">{say("resolved")}</option>
        </SelectField>
      </Filters>
      <Shown of={alerts}>
        {({ data, next }) => (
          <>
            <div class="card"><AlertTable of={data} changed={alerts.reload} /></div>
            <PageLinks path={PATH} query={query} next={next} />
          </>
        )}
      </Shown>
    </div>
  );
}

function AlertTable({ of, changed }: { of: readonly Alert[]; changed: () => void }) {
  return (
    <Table
      of={of}
      label={say("alerts")}
      id={(row) => row.id}
      empty="noAlerts"
      columns={[
        { label: "at", cell: (row) => dateTime(row.raisedAt) },
        { label: "kind", cell: (row) => <span class="mono">{row.kind}</span> },
        { label: "object", cell: (row) => <span class="mono">{row.subject}</span> },
        { label: "why", cell: (row) => row.detail },
        { label: "advice", cell: (row) => say(adviceOf(row.kind)) },
        {
          label: "note",
          cell: (row) => (row.resolvedAt ? row.note : <Actions of={[resolve(row)]} done={changed} />),
        },
      ]}
    />
  );
}

function adviceOf(kind: string): Sentence {
  return ADVICE.find(([beginning]) => kind.startsWith(beginning))?.[1] ?? "adviseRunbook";
}

function resolve({ id }: Alert) {
  return {
    name: `resolve ${id}`,
    label: "resolve" as const,
    confirmation: "confirmResolve" as const,
    fields: <TextArea name="note" label={say("note")} maxLength={500} required />,
    send: ({ note = "" }: Record<string, string>, idempotencyKey: string) =>
      call("POST /admin/alerts/{alertId}/resolution", { path: { alertId: id }, body: { note }, idempotencyKey }),
  };
}
