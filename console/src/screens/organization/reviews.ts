import { type Command, useCommand } from '../../api/hooks.ts';
import {
  ActivateOrganizationDocument,
  BlockOrganizationDocument,
  DeactivateOrganizationDocument,
  type OperatedStateFragment,
  OperatorDeleteOrganizationDocument,
  OperatorRestoreOrganizationDocument,
  type OrganizationReviewInput,
  RejectOrganizationDocument,
  ReleaseLegalHoldDocument,
  ReopenOrganizationDocument,
  ReviewOrganizationAgainDocument,
  SetLegalHoldDocument,
  UnblockOrganizationDocument,
  VerifyOrganizationDocument,
  WaitlistOrganizationDocument,
} from '../../generated/graphql.ts';

/** What an operator decides about an organization with a reason and nothing else. */
export type Review =
  | 'verify'
  | 'reject'
  | 'waitlist'
  | 'reopen'
  | 'reviewAgain'
  | 'block'
  | 'unblock'
  | 'activate'
  | 'deactivate'
  | 'delete'
  | 'restore'
  | 'hold'
  | 'release';

/** The decision that takes another one back, where the service leads back to the status before. */
export const BACK: Partial<Record<Review, Review>> = {
  verify: 'reviewAgain',
  block: 'unblock',
  unblock: 'block',
  activate: 'deactivate',
  deactivate: 'activate',
  delete: 'restore',
  restore: 'delete',
  hold: 'release',
};

export const HARSH: readonly Review[] = ['reject', 'block', 'deactivate', 'delete'];

/** Where each decision leads from, as `aggregates/src/status.rs` has it. */
export function reviewsOf({ verification, lifecycle, legalHold, purged }: OperatedStateFragment): readonly Review[] {
  if (purged) return [];
  const hold: Review = legalHold ? 'release' : 'hold';
  if (lifecycle === 'DELETED') return ['restore', hold];
  const status: Record<OperatedStateFragment['verification'], readonly Review[]> = {
    IN_SETUP: ['waitlist', 'block'],
    PENDING: ['verify', 'waitlist', 'reopen', 'reject', 'block'],
    WAITLISTED: ['reopen', 'block'],
    REJECTED: ['reopen', 'block'],
    VERIFIED: ['reviewAgain', 'block'],
    BLOCKED: ['unblock'],
  };
  return [...status[verification], lifecycle === 'INACTIVE' ? 'activate' : 'deactivate', hold, 'delete'];
}

export function useReviews(): Record<Review, Command<object, OrganizationReviewInput>> {
  return {
    verify: useCommand(VerifyOrganizationDocument),
    reject: useCommand(RejectOrganizationDocument),
    waitlist: useCommand(WaitlistOrganizationDocument),
    reopen: useCommand(ReopenOrganizationDocument),
    reviewAgain: useCommand(ReviewOrganizationAgainDocument),
    block: useCommand(BlockOrganizationDocument),
    unblock: useCommand(UnblockOrganizationDocument),
    activate: useCommand(ActivateOrganizationDocument),
    deactivate: useCommand(DeactivateOrganizationDocument),
    delete: useCommand(OperatorDeleteOrganizationDocument),
    restore: useCommand(OperatorRestoreOrganizationDocument),
    hold: useCommand(SetLegalHoldDocument),
    release: useCommand(ReleaseLegalHoldDocument),
  } as Record<Review, Command<object, OrganizationReviewInput>>;
}
