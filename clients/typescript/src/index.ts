export { type CallOptions, type Client, type ClientOptions, createClient, type FeedEvent } from './client.ts';
export { newIdempotencyKey, type Position, type TypedDocument, withIdempotencyKey } from './documents.ts';
export { Fault, type FaultCode, type GraphQLFault } from './faults.ts';
export type { FeedItem, FollowOptions } from './feed.ts';
export {
  type OtherRefusalCode,
  type Outcome,
  outcomeOf,
  type PayloadOf,
  type Refusal,
  type RefusalCode,
  refusalFields,
} from './refusals.ts';
