/** Notes about an order or a customer, which only operators see. */
import { call } from "@shared/api/client";
import type { Note } from "@shared/api/contract";
import { submit } from "@shared/api/submissions";
import { Form, TextArea, useSending } from "@shared/components/form";
import { dateTime } from "@shared/i18n";
import { Section, type Values } from "./parts";
import { say } from "./sentences";

type Subject = { order: string } | { customer: string };

export function Notes({
  about,
  of,
  changed,
}: {
  about: Subject;
  of: readonly Note[];
  changed: () => void;
}) {
  const sending = useSending();
  const onSend = async ({ text = "" }: Values) => {
    await submit(`note ${JSON.stringify(about)}`, text, (key) => add(about, text, key));
    changed();
  };
  return (
    <Section title={say("notes")}>
      <Form key={of.length} sending={sending} label={say("addNote")} onSend={onSend}>
        <TextArea name="text" label={say("note")} maxLength={2000} required />
      </Form>
      <ul class="rows">
        {of.map((note) => (
          <li key={note.id}>
            <p class="text">{note.text}</p>
            <span class="muted small">{note.authorId} · {dateTime(note.createdAt)}</span>
          </li>
        ))}
      </ul>
    </Section>
  );
}

function add(about: Subject, text: string, idempotencyKey: string): Promise<unknown> {
  const given = { body: { text }, idempotencyKey };
  return "order" in about
    ? call("POST /admin/orders/{orderId}/notes", { path: { orderId: about.order }, ...given })
    : call("POST /admin/customers/{userId}/notes", { path: { userId: about.customer }, ...given });
}
