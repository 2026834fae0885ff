import { useSubscription } from 'urql';
import { FollowDocument } from '../generated/graphql.ts';

/**
 * Follows the audit trail of an organization. Each event makes stale what the cache holds of its subject (`cache.ts`),
 * so open screens read it anew. The shell calls this once; screens need not.
 */
export function useLiveUpdates(organizationId: string | null, allowed: boolean): void {
  useSubscription({
    query: FollowDocument.toString(),
    variables: { organizationId: organizationId ?? '' },
    pause: !organizationId || !allowed,
  });
}
