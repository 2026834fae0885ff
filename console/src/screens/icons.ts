/** The icons of the navigation. */
export { Activity, Building2, ClipboardCheck, FolderKanban, LayoutDashboard, ScrollText, UsersRound } from 'lucide-react';
