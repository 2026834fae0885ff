interface Refused {
  /** What was wrong and what to do, for people. */
  message: string;
  /** The part of the input that it is about; null where it is about none. */
  path: readonly string[] | null;
}

/** `docs/api.md` has the table of codes. Four of them carry fields of their own. */
export type Refusal =
  | (Refused & { code: 'LIMIT_REACHED'; limit: string; maximum: number; used: number; requested: number })
  | (Refused & {
      code: 'ENTITY_STATUS';
      verification: string;
      lifecycle: string;
      capability: string;
      remedy: string;
    })
  | (Refused & { code: 'ALREADY_EXISTS'; existingId: string | null })
  | (Refused & { code: 'VERSION_CONFLICT'; expected: number; actual: number })
  | (Refused & { code: OtherRefusalCode });

export type OtherRefusalCode =
  | 'INVALID_STATE'
  | 'INVALID_INPUT'
  | 'INVITATION_NOT_PENDING'
  | 'INVITATION_WRONG_RECIPIENT'
  | 'LAST_OWNER'
  | 'ROLE_NOT_GRANTABLE'
  | 'FEATURE_NOT_ENTITLED';

export type RefusalCode = Refusal['code'];

/** Put it into the documents of mutations: `errors { ...RefusalFields }`. */
export const refusalFields = /* GraphQL */ `
  fragment RefusalFields on UserError {
    code
    message
    path
    ... on LimitReachedError { limit maximum used requested }
    ... on EntityStatusError { verification lifecycle capability remedy }
    ... on AlreadyExistsError { existingId }
    ... on VersionConflictError { expected actual }
  }
`;

/** What became of a command: it was done, or a rule refused it and nothing was changed. */
export type Outcome<Payload> =
  | { done: true; payload: Payload; refusals?: never }
  | { done: false; refusals: [Refusal, ...Refusal[]]; payload: Payload | null };

/** The payload of a mutation document with one root field. */
export type PayloadOf<Result> = Exclude<Result[Exclude<keyof Result, '__typename'>], null | undefined>;

/** The outcome of a mutation document with one root field. */
export function outcomeOf<Result>(data: Result): Outcome<PayloadOf<Result>> {
  const payload = Object.entries(data as Record<string, unknown>).find(([name]) => name !== '__typename')?.[1] as
    | (PayloadOf<Result> & { errors?: readonly Refusal[] })
    | null
    | undefined;
  if (payload === null || payload === undefined) throw new TypeError('the answer has no payload');
  const [first, ...rest] = payload.errors ?? [];
  return first ? { done: false, refusals: [first, ...rest], payload } : { done: true, payload };
}
