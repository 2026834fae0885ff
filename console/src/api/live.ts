import { useEffect } from 'react';
import { useSubscription } from 'urql';
import { FollowDocument } from '../generated/graphql.ts';

/**
 * Follows the audit trail of an organization. Each event makes stale what the cache holds of its subject (`cache.ts`),
 * so open screens read it anew. The shell calls this once; screens need not. `refused` is told when the service ends the
 * feed: it does so at once where the caller may no longer read the trail, for example as a member who was removed.
 */
export function useLiveUpdates(organizationId: string | null, allowed: boolean, refused: () => void): void {
  const [{ error }] = useSubscription({
    query: FollowDocument.toString(),
    variables: { organizationId: organizationId ?? '' },
    pause: !organizationId || !allowed,
  });
  useEffect(() => {
    if (error) refused();
  }, [error, refused]);
}
