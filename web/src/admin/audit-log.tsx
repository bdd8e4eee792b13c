/** Every write of an operator, newest first: who, what, and the values before and after. */
import { send } from "@shared/api/client";
import { TextField } from "@shared/components/form";
import { dateTime } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { Filters, useQuery } from "./filters";
import { PageLinks, Shown, Table } from "./parts";
import { say } from "./sentences";

const FILTERS = ["actorId", "action", "objectKind", "objectId"] as const;

export function AuditLog() {
  const query = useQuery();
  const entries = useLoaded(
    (signal) => send("GET /admin/audit-log", { query, signal }),
    [JSON.stringify(query)],
  );
  return (
    <div class="stack">
      <h1>{say("auditLog")}</h1>
      <Filters path="/audit-log" names={FILTERS}>
        <TextField name="actorId" label={say("actorId")} value={query.actorId} inputMode="numeric" />
        <TextField name="action" label={say("action")} value={query.action} placeholder="order.cancelled" />
        <TextField name="objectKind" label={say("objectKind")} value={query.objectKind} placeholder="order" />
        <TextField name="objectId" label={say("objectId")} value={query.objectId} />
      </Filters>
      <Shown of={entries}>
        {({ data, next }) => (
          <>
            <div class="card">
              <Table
                of={data}
                label={say("auditLog")}
                id={(row) => row.seq}
                columns={[
                  { label: "at", cell: (row) => <time>{dateTime(row.at)}</time> },
                  {
                    label: "actor",
                    cell: ({ actor }) => [actor.kind, actor.role, actor.id].filter((each) => each !== null).join(" "),
                  },
                  { label: "action", cell: (row) => <span class="mono">{row.action}</span> },
                  { label: "object", cell: (row) => <span class="mono">{row.object.kind} {row.object.id}</span> },
                  { label: "before", cell: (row) => <Values of={row.before} /> },
                  { label: "after", cell: (row) => <Values of={row.after} /> },
                ]}
              />
            </div>
            <PageLinks path="/audit-log" query={query} next={next} />
          </>
        )}
      </Shown>
    </div>
  );
}

function Values({ of }: { of: Record<string, unknown> | null }) {
  const rows = Object.entries(of ?? {});
  return <>{rows.map(([name, value]) => <div key={name} class="mono small">{name}: {JSON.stringify(value)}</div>)}</>;
}
