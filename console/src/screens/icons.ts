/** The icons of the navigation. */
export { FolderKanban, LayoutDashboard } from 'lucide-react';
