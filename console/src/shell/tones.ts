import type { OrganizationLifecycle, OrganizationVerification, UserState } from '../generated/graphql.ts';
import type { Tone } from '../parts/Notice.tsx';

export const toneOfUser: Record<UserState, Tone> = { ACTIVE: 'good', PENDING: 'warn', REVOKED: 'bad', ERASED: 'plain' };

/** The colour of an organization's status. The text says it too: colour alone says nothing. */
export function toneOf({
  lifecycle,
  verification,
}: {
  lifecycle: OrganizationLifecycle;
  verification: OrganizationVerification;
}): Tone {
  if (lifecycle === 'DELETED') return 'bad';
  if (lifecycle === 'INACTIVE') return 'warn';
  const tones: Record<OrganizationVerification, Tone> = {
    VERIFIED: 'good',
    PENDING: 'accent',
    IN_SETUP: 'plain',
    WAITLISTED: 'warn',
    REJECTED: 'bad',
    BLOCKED: 'bad',
  };
  return tones[verification];
}
