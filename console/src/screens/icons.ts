/** The icons of the navigation. */
export {
  Activity,
  Building2,
  ClipboardCheck,
  Eye,
  FolderKanban,
  Gauge,
  History,
  KeyRound,
  LayoutDashboard,
  ScrollText,
  ShieldCheck,
  UsersRound,
  Webhook,
} from 'lucide-react';
