/** Which pages and actions the signed-in account may see; the API decides about each request. */
import { account } from "@shared/session";

export type Role = "staff" | "support" | "finance" | "admin";

/** The roles that read orders and products. */
export const OPERATORS: readonly Role[] = ["staff", "support", "finance"];

export function has(...roles: readonly Role[]): boolean {
  return roles.some((role) => account.value?.role === role);
}
