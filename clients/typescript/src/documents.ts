/**
 * A GraphQL document with the types of its result and variables. The strings and the `TypedDocumentString` of
 * graphql-codegen (`documentMode: "string"`) are such documents; so is a plain string, with types named by hand.
 */
export interface TypedDocument<Result, Variables> {
  toString(): string;
  /** Never there at run time: it carries the types. */
  __apiType?: (variables: Variables) => Result;
}

/** A place in the log. Only ever passed back. */
export type Position = string;

/** The idempotency key of a command: made once, and the same for every repetition of it. */
export function newIdempotencyKey(): string {
  return crypto.randomUUID();
}

/** The variables with an idempotency key in their `input`. A key that is there already stays. */
export function withIdempotencyKey<Variables>(variables: Variables): Variables {
  const input = (variables as { input?: { idempotencyKey?: string | null } } | null)?.input;
  if (typeof input !== 'object' || input === null || input.idempotencyKey) return variables;
  return { ...variables, input: { ...input, idempotencyKey: newIdempotencyKey() } };
}
