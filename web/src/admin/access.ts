/** Which actions the signed-in account may see; the API decides again about each request. */
import { account } from "@shared/session";

export type Role = "staff" | "support" | "finance" | "admin";

const OPERATORS: readonly string[] = ["staff", "support", "finance"];

export function has(role: Role): boolean {
  return account.value?.role === role;
}

/** Whether the account reads orders. */
export function isOperator(): boolean {
  return OPERATORS.includes(account.value?.role ?? "");
}
