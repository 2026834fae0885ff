import { expect, it } from 'vitest';
import { lastFailure } from './EndpointState.tsx';

/** Deliveries by the minutes of their attempts, each with the status that was answered. */
const deliveries = (...attempts: [minute: number, status: number | null][][]) => ({
  nodes: attempts.map((one, index) => ({
    id: `delivery-${index}`,
    attempts: one.map(([minute, status]) => ({ at: new Date(minute * 60_000).toISOString(), status, error: null })),
  })),
});
const none = deliveries();

it('an endpoint of which one delivery is tried again is not failing', () => {
  expect(lastFailure({ state: 'ENABLED', retrying: deliveries([[1, 500]]), taken: none })).toBeNull();
  expect(lastFailure({ state: 'ENABLED', retrying: deliveries([[1, 500], [2, 500]], [[3, null], [4, 500]]), taken: none })).toBeNull();
});

it('five failures one after the other are failing, by whichever deliveries', () => {
  const retrying = deliveries([[1, 500], [4, 502]], [[2, 500], [3, null], [5, 503]]);
  expect(lastFailure({ state: 'ENABLED', retrying, taken: none })?.status).toBe(503);
  expect(lastFailure({ state: 'ENABLED', retrying, taken: deliveries([[0, 200]]) })?.status).toBe(503);
});

it('what arrived in between ends it, and so does disabling', () => {
  const retrying = deliveries([[1, 500], [4, 502]], [[2, 500], [3, null], [6, 503]]);
  expect(lastFailure({ state: 'ENABLED', retrying, taken: deliveries([[0, 500], [5, 204]]) })).toBeNull();
  expect(lastFailure({ state: 'DISABLED', retrying, taken: none })).toBeNull();
  // Those who may not read the trail see no deliveries.
  expect(lastFailure({ state: 'ENABLED', retrying: null, taken: null })).toBeNull();
});
