import { ApiError } from "@shared/api/client";
import { Form, TextField, useSending } from "@shared/components/form";
import { logIn } from "@shared/session";
import { useState } from "preact/hooks";
import { say } from "./sentences";

/** Asks for a code once the API says that the account needs one. */
export function LogIn() {
  const sending = useSending();
  const [needsCode, change] = useState(false);
  const onSend = async ({ email = "", password = "", code = "" }: Record<string, string>) => {
    try {
      await logIn(email, password, code || undefined);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "SECOND_FACTOR_REQUIRED") throw error;
      change(true);
    }
  };
  return (
    <div class="card narrow stack">
      <h1>{say("logIn")}</h1>
      <Form sending={sending} label={say("logIn")} onSend={onSend}>
        <TextField name="email" type="email" label={say("email")} autocomplete="username" required />
        <TextField
          name="password"
          type="password"
          label={say("password")}
          autocomplete="current-password"
          required
        />
        {needsCode && (
          <TextField
            name="code"
            label={say("code")}
            hint={say("codeHint")}
            autocomplete="one-time-code"
            maxLength={20}
            required
          />
        )}
      </Form>
    </div>
  );
}
