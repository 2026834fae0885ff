/** The icons of the navigation. */
export { FolderKanban, History, LayoutDashboard, ScrollText, ShieldCheck } from 'lucide-react';
