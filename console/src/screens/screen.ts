import type { LucideIcon } from 'lucide-react';
import { type ComponentType, lazy } from 'react';
import type { Need } from '../shell/standing.tsx';
import type { TextKey } from '../texts/texts.tsx';

export type Group = 'organization' | 'access' | 'audit' | 'operate';

/** The parameters of a screen's path, such as `:projectId`. */
export interface ScreenProps {
  params: Readonly<Record<string, string | undefined>>;
}

export interface Screen {
  /** Below `/o/:organizationId`, below `/operate` for the group `operate`, below `/` for a person. `''` is the first page. */
  path: string;
  title: TextKey;
  /** Where it stands in the navigation; null for screens that others lead to. */
  group: Group | null;
  /** Of which plane it is. Only the first one has an organization. `person`: for those who are in none yet, too. */
  plane: 'organization' | 'operate' | 'person';
  icon: LucideIcon;
  /** Without it the screen is neither listed nor opened. */
  need: Need;
  component: ComponentType<ScreenProps>;
  /** Loads the chunk, for example while a link is hovered. */
  preload: () => Promise<unknown>;
}

/** Declares a screen. `load` imports its folder's component: `() => import('./projects/Projects.tsx')`. */
export function screen({
  load,
  ...rest
}: Omit<Screen, 'component' | 'preload' | 'need' | 'plane' | 'group'> & {
  group?: Group;
  plane?: Screen['plane'];
  need?: Need;
  load: () => Promise<{ default: ComponentType<ScreenProps> }>;
}): Screen {
  const plane = rest.plane ?? (rest.group === 'operate' ? 'operate' : 'organization');
  const need = rest.need ?? {};
  return {
    ...rest,
    group: rest.group ?? null,
    plane,
    need: plane === 'operate' ? { operator: true, ...need } : need,
    component: lazy(load),
    preload: load,
  };
}
