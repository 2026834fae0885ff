import { useCallback, useMemo } from 'react';
import { useStanding } from '../shell/standing.tsx';
import { useText } from '../texts/texts.tsx';

/** A role as `roles` has it. */
export interface RoleInfo {
  name: string;
  builtIn: boolean;
  description: string;
  permissions: readonly string[];
}

const OWNER = 'owner';

/**
 * What the caller may give and take, so that a screen says it beforehand: nobody gives or takes more than they have,
 * and owners are for owners. Operators are not bound. The service decides in the end.
 */
export function useGrants(roles: readonly RoleInfo[]) {
  const t = useText();
  const { permissions, actsAsOperator, viewer, organization } = useStanding();
  const mine = useMemo(
    () => viewer.memberships.nodes.find((membership) => membership.organization?.id === organization?.id) ?? null,
    [viewer, organization],
  );
  const isOwner = actsAsOperator || (mine?.roles.includes(OWNER) ?? false);
  /** Of these permissions, what the caller lacks. */
  const lacks = useCallback(
    (names: readonly string[]) => (actsAsOperator ? [] : names.filter((name) => !permissions.has(name))),
    [actsAsOperator, permissions],
  );
  /** Why the caller may not give this role; null where they may. */
  const againstGiving = useCallback(
    (name: string): string | null => {
      if (name === OWNER && !isOwner) return t('members.grant.owner');
      const missing = lacks(roles.find((role) => role.name === name)?.permissions ?? []);
      return missing.length > 0 ? t('members.grant.lacks', { permissions: missing.join(', ') }) : null;
    },
    [isOwner, lacks, roles, t],
  );
  /** Why the caller may take nothing from somebody with these roles; null where they may. */
  const againstTaking = useCallback(
    (held: readonly string[]): string | null => {
      if (held.includes(OWNER) && !isOwner) return t('members.take.owner');
      const missing = lacks([...new Set(roles.filter(({ name }) => held.includes(name)).flatMap((role) => role.permissions))]);
      return missing.length > 0 ? t('members.take.lacks', { permissions: missing.join(', ') }) : null;
    },
    [isOwner, lacks, roles, t],
  );
  return { mine, isOwner, lacks, againstGiving, againstTaking };
}
