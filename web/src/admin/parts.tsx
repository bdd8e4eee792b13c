/** What every page of the back office is made of: sections, tables, page links, confirmed actions. */
import { ApiError } from "@shared/api/client";
import { submit } from "@shared/api/submissions";
import { Badge, Button, ErrorNotice, Loading, type Tone } from "@shared/components/basic";
import { Dialog } from "@shared/components/dialog";
import { Form, SendingError, useSending } from "@shared/components/form";
import { announce } from "@shared/components/frame";
import type { Loaded } from "@shared/load";
import { href } from "@shared/router";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { say, type Sentence } from "./sentences";

export type Values = Record<string, string>;

/** What an operator may do: a confirmation with its fields, then one request. */
export interface Action {
  name: string;
  label: Sentence;
  confirmation: Sentence;
  danger?: boolean;
  fields?: ComponentChildren;
  send: (values: Values, idempotencyKey: string) => Promise<unknown>;
}

const TONES: Record<string, Tone> = {
  ACTIVE: "good",
  CANCELLING: "warn",
  CAPTURED: "good",
  DECLINED: "bad",
  DELIVERED: "good",
  DISABLED: "bad",
  FAILED: "bad",
  PAID: "good",
  PENDING: "info",
  PLANNED: "info",
  REJECTED: "bad",
  REQUESTED: "warn",
  SHIPPED: "info",
  SUCCEEDED: "good",
  UNKNOWN: "warn",
};

export function Status({ of }: { of: string }) {
  return <Badge tone={TONES[of] ?? "neutral"}>{of}</Badge>;
}

/** A heading with the actions on what it names. */
export function Heading({ title, children }: { title: ComponentChildren; children?: ComponentChildren }) {
  return <div class="row between"><h1 class="row">{title}</h1>{children}</div>;
}

export function Section({ title, children }: { title: string; children: ComponentChildren }) {
  return <section class="card stack tight"><h2>{title}</h2>{children}</section>;
}

/**
 * The buttons of actions; each opens its confirmation, and `done` runs after it was carried out.
 *
 * `outdated` runs when somebody else has changed the object (412).  The dialog keeps what was typed,
 * and sending it again uses the action of the object as it was read again.
 */
export function Actions({
  of,
  done,
  outdated,
}: {
  of: readonly Action[];
  done: (result: unknown) => void;
  outdated?: () => void;
}) {
  const [chosen, choose] = useState<Action | null>(null);
  const present = of.find((each) => each.name === chosen?.name) ?? chosen;
  const onDone = (result: unknown) => {
    choose(null);
    announce(say("done"));
    done(result);
  };
  return (
    <div class="actions">
      {of.map((each) => (
        <Button key={each.name} kind={each.danger ? "danger" : "secondary"} onClick={() => choose(each)}>
          {say(each.label)}
        </Button>
      ))}
      {chosen && present && (
        <Confirmation
          of={{ ...present, fields: chosen.fields }}
          onClose={() => choose(null)}
          onDone={onDone}
          outdated={outdated}
        />
      )}
    </div>
  );
}

function Confirmation({
  of,
  onClose,
  onDone,
  outdated,
}: {
  of: Action;
  onClose: () => void;
  onDone: (result: unknown) => void;
  outdated: (() => void) | undefined;
}) {
  const sending = useSending();
  const onSend = async (values: Values) => {
    try {
      onDone(await submit(of.name, values, (key) => of.send(values, key)));
    } catch (error) {
      if (error instanceof ApiError && error.status === 412) outdated?.();
      throw error;
    }
  };
  return (
    <Dialog title={say(of.label)} onClose={onClose}>
      <p>{say(of.confirmation)}</p>
      <Form sending={sending} label={say(of.label)} kind={of.danger ? "danger" : "primary"} onSend={onSend}>
        {of.fields}
      </Form>
    </Dialog>
  );
}

/** The data of a page, or that it is loading or failed. */
export function Shown<T>({ of, children }: { of: Loaded<T>; children: (data: T) => ComponentChildren }) {
  if (of.error !== undefined) return <ErrorNotice error={of.error} retry={of.reload} />;
  return of.data === undefined ? <Loading /> : <>{children(of.data)}</>;
}

interface Column<T> {
  label: Sentence;
  number?: boolean;
  cell: (row: T) => ComponentChildren;
}

export function Table<T>({
  of,
  label,
  columns,
  id,
  empty = "empty",
}: {
  of: readonly T[];
  label: string;
  columns: readonly Column<T>[];
  id: (row: T) => string | number;
  empty?: Sentence;
}) {
  if (of.length === 0) return <p class="muted">{say(empty)}</p>;
  return (
    <div class="table" tabIndex={0} role="region" aria-label={label}>
      <table>
        <thead>
          <tr>
            {columns.map((each) => (
              <th key={each.label} scope="col" class={each.number ? "number" : ""}>{say(each.label)}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {of.map((row) => (
            <tr key={id(row)}>
              {columns.map((each) => (
                <td key={each.label} class={each.number ? "number" : ""}>{each.cell(row)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Links to the first and to the next page of a list; its cursor is a parameter of the address. */
export function PageLinks({
  path,
  query,
  name = "cursor",
  next,
}: {
  path: string;
  query: Record<string, string | number | undefined>;
  name?: string;
  next: string | null;
}) {
  if (!query[name] && !next) return null;
  return (
    <nav class="actions" aria-label={say("pages")}>
      {query[name] && (
        <a class="button" href={href(path, { ...query, [name]: undefined })}>{say("firstPage")}</a>
      )}
      {next && <a class="button" href={href(path, { ...query, [name]: next })}>{say("nextPage")}</a>}
    </nav>
  );
}

/** A button that saves a file of the API; a link cannot, as the access token is in a header. */
export function Download({ name, load }: { name: string; load: () => Promise<unknown> }) {
  const sending = useSending();
  const run = async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([String(await load())], { type: "text/csv" }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return (
    <div>
      <Button kind="quiet" busy={sending.busy} onClick={() => void sending.run(run)}>{say("csv")}</Button>
      <SendingError sending={sending} />
    </div>
  );
}
