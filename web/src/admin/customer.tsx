/** One customer: account, open sessions, orders, and the notes of support. */
import { send } from "@shared/api/client";
import { dateTime } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { useQuery } from "./filters";
import { Notes } from "./notes";
import { OrderTable } from "./orders";
import { PageLinks, Section, Shown, Status, Table } from "./parts";
import { say } from "./sentences";

export function CustomerPage({ id }: { id: string }) {
  const query = useQuery();
  const path = `/customers/${id}`;
  const customer = useLoaded(
    (signal) => send("GET /admin/customers/{userId}", { path: { userId: id }, query, signal }),
    [id, JSON.stringify(query)],
  );
  return (
    <Shown of={customer}>
      {({ data: found, next }) => (
        <div class="stack">
          <h1 class="row">{found.name} <Status of={found.state} /></h1>
          <div class="halves">
            <Section title={say("account")}>
              <dl class="facts">
                <dt>{say("userId")}</dt><dd>{found.id}</dd>
                <dt>{say("email")}</dt><dd>{found.email}</dd>
                <dt>{say("role")}</dt><dd>{found.role}</dd>
                <dt>{say("language")}</dt><dd>{found.language}</dd>
                <dt>{say("since")}</dt><dd>{dateTime(found.createdAt)}</dd>
              </dl>
            </Section>
            <Section title={say("sessions")}>
              <Table
                of={found.sessions}
                label={say("sessions")}
                id={(row) => row.id}
                columns={[
                  { label: "since", cell: (row) => dateTime(row.createdAt) },
                  { label: "renewed", cell: (row) => dateTime(row.renewedAt) },
                  { label: "until", cell: (row) => dateTime(row.expiresAt) },
                ]}
              />
            </Section>
          </div>
          <Section title={say("orders")}><OrderTable of={found.orders} /></Section>
          <PageLinks path={path} query={query} next={next} />
          <Notes about={{ customer: id }} of={found.notes} changed={customer.reload} />
        </div>
      )}
    </Shown>
  );
}
