import { type AnyVariables, type CombinedError, type Operation, useClient, useQuery } from 'urql';
import { createContext, useCallback, useContext, useEffect, useRef, useState } from 'react';
import { Fault, type Outcome, outcomeOf, type PayloadOf, type Refusal, type TypedDocument } from '@tenancy/client';
import type { Api, FeedState } from './api.ts';

export const ApiContext = createContext<Api | null>(null);
export function useApi(): Api {
  const api = useContext(ApiContext);
  if (!api) throw new Error('there is no ApiContext');
  return api;
}

export type Reading<Data> =
  | { state: 'loading'; retry: () => void; data?: undefined }
  | { state: 'ready'; retry: () => void; data: Data; refreshing: boolean }
  | { state: 'failed'; retry: () => void; fault: Fault; data?: undefined };

/** Reads a document and follows the cache. A screen has one of these for its first content. */
export function useRead<Result, Variables>(
  document: TypedDocument<Result, Variables>,
  variables: Variables,
  options: { pause?: boolean } = {},
): Reading<Result> {
  const [result, execute] = useQuery<Result, AnyVariables>({
    query: document.toString(),
    variables: variables as AnyVariables,
    pause: options.pause ?? false,
    requestPolicy: 'cache-and-network',
  });
  const retry = useCallback(() => execute({ requestPolicy: 'network-only' }), [execute]);
  // While something stale is read anew, the cache gives null in its place, and what was whole stays on the screen.
  const whole = useRef<{ of: string; data: Result } | null>(null);
  const of = document.toString() + JSON.stringify(variables);
  const last = whole.current?.of === of ? whole.current.data : null;
  // The cache does not read anew what became stale again right after it was read. Then nobody else will.
  const lost = !result.stale && last !== null && isPartial(result) && hasLost(last, result.data);
  useEffect(() => {
    if (lost && !result.fetching) retry();
  }, [lost, result.fetching, retry]);
  const data = (result.stale || lost) && last ? last : result.data;
  // Old data is better than an error of the refresh: the next event or visit tries again.
  if (data && !(result.error && !result.stale && hasNothing(data))) {
    // After a change of variables, urql shows the data of the last ones until the next are there.
    if (!result.stale && !result.fetching && !lost) whole.current = { of, data };
    return { state: 'ready', retry, data, refreshing: result.stale || result.fetching || lost };
  }
  if (result.error) return { state: 'failed', retry, fault: faultOf(result.error) };
  return { state: 'loading', retry };
}

function isPartial({ operation }: { operation?: Operation | undefined }): boolean {
  return operation?.context.meta?.cacheOutcome === 'partial';
}

/** Whether something that was there is null now. What a person may not see was null before too. */
function hasLost(before: unknown, now: unknown): boolean {
  if (before === null || before === undefined) return false;
  if (now === null || now === undefined) return true;
  if (typeof before !== 'object' || Array.isArray(before)) return false;
  return Object.entries(before).some(([name, value]) => hasLost(value, (now as Record<string, unknown>)[name]));
}

function hasNothing(data: unknown): boolean {
  return Object.entries(data as object).every(([name, value]) => name === '__typename' || value === null);
}

export interface Command<Result, Input> {
  /** Sends the command. The outcome is null where it failed; `fault` then says why. */
  run(input: Input): Promise<Outcome<PayloadOf<Result>> | null>;
  pending: boolean;
  /** Of the last run: show them where the person acted, with `<Refusals>` and `<Field refusals>`. */
  refusals: readonly Refusal[];
  fault: Fault | null;
  reset(): void;
}

/** A mutation document with a variable `input`. */
export function useCommand<Result, Input>(
  document: TypedDocument<Result, { input: Input }>,
): Command<Result, Input> {
  const api = useApi();
  const client = useClient();
  const [state, setState] = useState<{ pending: boolean; refusals: readonly Refusal[]; fault: Fault | null }>(IDLE);
  const text = document.toString();
  const run = useCallback(
    async (input: Input) => {
      setState({ ...IDLE, pending: true });
      const { data, error } = await client.mutation<Result>(text, { input } as AnyVariables).toPromise();
      if (error || !data) {
        setState({ ...IDLE, fault: error ? faultOf(error) : new Fault('INTERNAL', 'the answer has no data') });
        return null;
      }
      const outcome = outcomeOf<Result>(data as Result);
      api.reached((outcome.payload as { position?: string | null } | null)?.position);
      setState({ ...IDLE, refusals: outcome.refusals ?? [] });
      return outcome;
    },
    [api, client, text],
  );
  const reset = useCallback(() => setState(IDLE), []);
  return { run, reset, ...state };
}

const IDLE = { pending: false, refusals: [], fault: null };

export function faultOf(error: CombinedError): Fault {
  if (error.networkError instanceof Fault) return error.networkError;
  if (error.graphQLErrors.length > 0) return Fault.of(error.graphQLErrors as never);
  return new Fault('NETWORK', error.networkError?.message ?? error.message, { cause: error });
}

/** Whether the live feed is there. */
export function useFeedState(): FeedState {
  const api = useApi();
  const [state, setState] = useState<FeedState>('off');
  useEffect(() => api.onFeed(setState), [api]);
  return state;
}

/** The last value that was not undefined: what is on the screen stays while the next one loads. */
export function useLast<Value>(value: Value | undefined): Value | undefined {
  const last = useRef(value);
  if (value !== undefined) last.current = value;
  return last.current;
}
