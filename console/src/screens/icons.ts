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
  MailPlus,
  ScrollText,
  Settings,
  ShieldCheck,
  Users,
  UsersRound,
  Webhook,
} from 'lucide-react';
