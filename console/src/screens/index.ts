import * as icons from './icons.ts';
import { type Screen, screen } from './screen.ts';

/** Every screen, in the order of the navigation. A new one is a folder, and a line here. */
export const screens: readonly Screen[] = [
  screen({ path: '', title: 'overview.title', group: 'organization', icon: icons.LayoutDashboard, need: { permission: 'organization:read' }, load: () => import('./overview/Overview.tsx') }),
  screen({ path: '/projects', title: 'projects.title', group: 'organization', icon: icons.FolderKanban, need: { permission: 'project:read' }, load: () => import('./projects/Projects.tsx') }),
  screen({ path: '/members', title: 'members.title', group: 'organization', icon: icons.Users, need: { permission: 'member:read' }, load: () => import('./members/Members.tsx') }),
];
