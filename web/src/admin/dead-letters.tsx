/** Events that ran out of retries: what they are, why they failed, and to drop one for good. */
import { call, send } from "@shared/api/client";
import type { DeadLetter } from "@shared/api/contract";
import { SelectField, TextArea } from "@shared/components/form";
import { dateTime } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { href } from "@shared/router";
import { Filters, useQuery } from "./filters";
import { type Action, Actions, Heading, PageLinks, Section, Shown, Table } from "./parts";
import { say, type Sentence } from "./sentences";

const PATH = "/dead-letters";

export function DeadLetters() {
  const query = useQuery<Record<string, string> & { state?: "OPEN" | "ALL" }>();
  const letters = useLoaded(
    (signal) => send("GET /admin/dead-letters", { query, signal }),
    [JSON.stringify(query)],
  );
  return (
    <div class="stack">
      <h1>{say("deadLetters")}</h1>
      <Filters path={PATH} names={["state"]}>
        <SelectField name="state" label={say("status")} value={query.state ?? "OPEN"}>
          <option value="OPEN">{say("open")}</option>
          <option value="ALL">{say("any")}</option>
        </SelectField>
      </Filters>
      <Shown of={letters}>
        {({ data, next }) => (
          <>
            <div class="card">
              <Table
                of={data}
                label={say("deadLetters")}
                id={(row) => row.id}
                columns={[
                  { label: "event", cell: (row) => <a class="mono" href={href(`${PATH}/${row.id}`)}>{row.type}</a> },
                  { label: "object", cell: (row) => row.subject },
                  { label: "status", cell: (row) => say(stateOf(row)) },
                  { label: "response", cell: (row) => row.errorCode },
                  { label: "consumer", cell: (row) => <span class="mono small">{row.destination}</span> },
                  { label: "at", cell: (row) => dateTime(row.receivedAt) },
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

function stateOf(letter: DeadLetter): Sentence {
  if (letter.droppedAt) return "dropped";
  return letter.replayedAt ? "replayed" : "open";
}

export function DeadLetterPage({ id }: { id: string }) {
  const path = { deadLetterId: id };
  const letter = useLoaded(
    (signal) => call("GET /admin/dead-letters/{deadLetterId}", { path, signal }),
    [id],
  );
  const drop: Action = {
    name: `drop ${id}`,
    label: "dropEvent",
    confirmation: "confirmDropEvent",
    danger: true,
    fields: <TextArea name="reason" label={say("reason")} maxLength={500} required />,
    send: ({ reason = "" }, idempotencyKey) =>
      call("POST /admin/dead-letters/{deadLetterId}/drop", { path, body: { reason }, idempotencyKey }),
  };
  return (
    <Shown of={letter}>
      {(of) => (
        <div class="stack">
          <a href={href(PATH)}>← {say("deadLetters")}</a>
          <Heading title={<span class="mono">{of.type}</span>}>
            {stateOf(of) === "open" && <Actions of={[drop]} done={letter.reload} />}
          </Heading>
          <Section title={say("event")}>
            <dl class="facts">
              <dt>{say("status")}</dt><dd>{say(stateOf(of))} {of.droppedReason}</dd>
              <dt>{say("object")}</dt><dd>{of.subject}</dd>
              <dt>{say("consumer")}</dt><dd class="mono">{of.destination}</dd>
              <dt>{say("response")}</dt><dd>{[of.errorCode, of.response].filter(Boolean).join(" ")}</dd>
              <dt>{say("at")}</dt><dd>{dateTime(of.receivedAt)}</dd>
              {Object.entries(of.headers).map(([name, value]) => (
                <><dt class="mono">{name}</dt><dd class="mono">{value}</dd></>
              ))}
            </dl>
            <pre class="mono small">{of.body}</pre>
          </Section>
        </div>
      )}
    </Shown>
  );
}
