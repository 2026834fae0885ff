import { createContext, useCallback, useContext } from 'react';
import type { OrganizationCapability, ShellQuery } from '../generated/graphql.ts';
import { type TextKey, useText } from '../texts/texts.tsx';

type Organization = NonNullable<ShellQuery['organization']>;

/** Where the caller stands: who they are, the organization that is open, and what they may do in it. */
export interface Standing {
  viewer: NonNullable<ShellQuery['viewer']>;
  organization: Organization | null;
  permissions: ReadonlySet<string>;
  /** An operator in an organization that is not theirs: commands need a reason. */
  actsAsOperator: boolean;
}

const StandingContext = createContext<Standing | null>(null);
export const StandingProvider = StandingContext.Provider;

export function useStanding(): Standing {
  const standing = useContext(StandingContext);
  if (!standing) throw new Error('there is no standing outside the shell');
  return standing;
}

/** The organization that is open. Only for screens of an organization. */
export function useOrganization(): Organization {
  const { organization } = useStanding();
  if (!organization) throw new Error('no organization is open');
  return organization;
}

/** What an action needs; all of it. */
export interface Need {
  /** Of `permissionCatalogue`. */
  permission?: string;
  /** Operators may not do this in an organization that is not theirs, for example leave it. */
  membersOnly?: boolean;
  capability?: OrganizationCapability;
  /** One more of this limit. */
  limit?: string;
  operator?: boolean;
}

export type May = { allowed: true } | { allowed: false; because: 'permission' | 'capability' | 'limit'; reason: string };

/** `const may = useMay(); may({ permission: 'project:create', limit: 'projects' })`. The service decides in the end. */
export function useMay(): (need: Need) => May {
  const standing = useContext(StandingContext);
  const t = useText();
  return useCallback(
    (need) => {
      const { organization } = standing ?? {};
      if (need.operator && !standing?.viewer.operator) {
        return { allowed: false, because: 'permission', reason: t('may.permission', { permission: 'operator' }) };
      }
      if (need.membersOnly && standing?.actsAsOperator) {
        return { allowed: false, because: 'permission', reason: t('may.membersOnly') };
      }
      // Roles do not bind operators: `permissions` names nothing of an organization that is not theirs.
      if (need.permission && !standing?.actsAsOperator && !standing?.permissions.has(need.permission)) {
        return { allowed: false, because: 'permission', reason: t('may.permission', { permission: need.permission }) };
      }
      if (need.capability && organization && !organization.capabilities.includes(need.capability)) {
        return { allowed: false, because: 'capability', reason: t('may.capability', { status: t(statusKey(organization)) }) };
      }
      const limit = organization?.limits.find(({ name }) => name === need.limit);
      if (limit && limit.maximum !== null && limit.used >= limit.maximum) {
        return {
          allowed: false,
          because: 'limit',
          reason: t('may.limit', { used: limit.used, maximum: limit.maximum }),
        };
      }
      return { allowed: true };
    },
    [standing, t],
  );
}

/** The status that says the most: a deleted or inactive organization's verification does not matter. */
export function statusKey({ lifecycle, verification }: Pick<Organization, 'lifecycle' | 'verification'>): TextKey {
  return lifecycle === 'ACTIVE' ? `verification.${verification}` : `lifecycle.${lifecycle}`;
}
