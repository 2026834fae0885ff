import { FolderPlus } from 'lucide-react';
import { useState } from 'react';
import { type Command, useCommand } from '../../api/hooks.ts';
import {
  ArchiveProjectDocument,
  CreateProjectDocument,
  DeleteProjectDocument,
  type ProjectOrder,
  type ProjectRowFragment,
  ProjectsDocument,
  type ProjectState,
  RestoreProjectDocument,
  UnarchiveProjectDocument,
  UpdateProjectDocument,
  type UpdateProjectInput,
  type UpdateProjectMutation,
} from '../../generated/graphql.ts';
import { PermissionButton } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { FormDialog, useDialog } from '../../parts/Dialogs.tsx';
import { Field } from '../../parts/Field.tsx';
import { Filters } from '../../parts/Filters.tsx';
import { ActionItem, ActionMenu } from '../../parts/Menu.tsx';
import { Badge, Notice, Refusals, type Tone } from '../../parts/Notice.tsx';
import { Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import { useFirstPage } from '../../parts/pages.ts';
import parts from '../../parts/parts.module.css';
import { Empty } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Time } from '../../parts/Values.tsx';
import { useMay, useOrganization, useStanding } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';

type Project = ProjectRowFragment;
type Filter = 'LIVE' | ProjectState;
const FILTERS: readonly Filter[] = ['LIVE', 'ACTIVE', 'ARCHIVED', 'DELETED'];
const ORDERS: readonly ProjectOrder[] = ['CREATED', 'NAME'];
const TONES: Record<ProjectState, Tone> = { ACTIVE: 'good', ARCHIVED: 'plain', DELETED: 'bad' };

type Act = 'archive' | 'unarchive' | 'delete' | 'restore';
/** What takes an act back. */
const BACK: Record<Act, Act> = { archive: 'unarchive', unarchive: 'archive', delete: 'restore', restore: 'delete' };

export default function Projects() {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const { actsAsOperator } = useStanding();
  const may = useMay();
  const [filter, setFilter] = useState<Filter>('LIVE');
  const [orderBy, setOrderBy] = useState<ProjectOrder>('CREATED');
  const variables = { organizationId, state: filter === 'LIVE' ? null : filter, orderBy };
  const first = useFirstPage(ProjectsDocument, variables);
  const dialog = useDialog<Project | null>();
  const create = useCommand(CreateProjectDocument);
  const update = useCommand(UpdateProjectDocument);
  const archive = useCommand(ArchiveProjectDocument);
  const unarchive = useCommand(UnarchiveProjectDocument);
  const remove = useCommand(DeleteProjectDocument);
  const restore = useCommand(RestoreProjectDocument);

  // Commands that need no question report here, above the list.
  const commands = { archive, unarchive, delete: remove, restore };
  const direct = Object.values(commands);
  const stops = direct.find(({ refusals, fault }) => refusals.length > 0 || fault);

  const act = async ({ id: projectId, name, version: expectedVersion }: Project, what: Act, reason?: string) => {
    for (const command of direct) command.reset();
    const outcome = await commands[what].run({ projectId, expectedVersion, reason });
    if (outcome?.done) toast(t(`projects.done.${what}`, { name }), { reason, undo: (reason) => commands[BACK[what]].run({ projectId, reason }) });
    return outcome?.done ?? false;
  };
  // Operators are asked for their reason first.
  const ask = (project: Project, what: Act) =>
    actsAsOperator ? dialog.open(what, project) : void act(project, what);

  const createButton = (
    <PermissionButton
      look="primary"
      need={{ permission: 'project:create', capability: 'CREATE_RESOURCES', limit: 'projects' }}
      onPress={() => dialog.open('create', null)}
    >
      <FolderPlus size={16} aria-hidden />
      {t('projects.create')}
    </PermissionButton>
  );

  return (
    <Page
      title={t('projects.title')}
      count={first.data?.organization?.projects?.totalCount}
      text={t('projects.text')}
      actions={createButton}
    >
      <Filters>
        <Choice
          label={t('projects.filter')}
          value={filter}
          onChange={setFilter}
          options={FILTERS.map((value) => ({ value, text: t(`projects.filter.${value}`) }))}
        />
        <Choice
          label={t('list.order')}
          value={orderBy}
          onChange={setOrderBy}
          options={ORDERS.map((value) => ({ value, text: t(`projects.order.${value}`) }))}
        />
      </Filters>
      {stops && !dialog.of('delete') ? <Refusals of={stops} /> : null}
      <PagedList
        label={t('projects.title')}
        document={ProjectsDocument}
        variables={variables}
        connection={({ organization }) => organization?.projects}
        keep={({ state }: Project) => (filter === 'LIVE' ? state !== 'DELETED' : state === filter)}
        empty={
          filter === 'LIVE' ? (
            <Empty title={t('projects.empty')} action={createButton}>
              {may({ capability: 'CREATE_RESOURCES' }).allowed ? t('projects.empty.text') : <NotYet />}
            </Empty>
          ) : (
            <Empty title={t('projects.none')} />
          )
        }
        columns={[
          {
            id: 'name',
            title: t('projects.name'),
            sorted: orderBy === 'NAME',
            width: 'minmax(0, 2fr)',
            cell: ({ name, slug }) => (
              <span className={parts.main}>
                {name}
                <span className={parts.sub}>{slug}</span>
              </span>
            ),
          },
          {
            id: 'state',
            title: t('projects.state'),
            cell: ({ state, purgeAt }) => (
              <span>
                <Badge tone={TONES[state]}>{t(`projects.filter.${state}`)}</Badge>
                {purgeAt ? (
                  <span className={parts.sub}>
                    {' '}
                    {t('projects.goneFor')} <Time at={purgeAt} relative />
                  </span>
                ) : null}
              </span>
            ),
          },
          {
            id: 'created',
            title: t('projects.created'),
            sorted: orderBy === 'CREATED',
            cell: ({ createdAt }) => <Time at={createdAt} withTime={false} />,
          },
          {
            id: 'actions',
            title: t('projects.actions'),
            width: '2rem',
            align: 'end',
            cell: (project) => (
              <ActionMenu label={t('projects.actionsOf', { name: project.name })}>
                {project.state === 'DELETED' ? (
                  <ActionItem
                    need={{ permission: 'project:delete', capability: 'CHANGE_RESOURCES', limit: 'projects' }}
                    onAction={() => ask(project, 'restore')}
                  >
                    {t('projects.restore')}
                  </ActionItem>
                ) : null}
                {project.state === 'ACTIVE' ? (
                  <ActionItem
                    need={{ permission: 'project:update', capability: 'CHANGE_RESOURCES' }}
                    onAction={() => dialog.open('rename', project)}
                  >
                    {t('projects.rename')}
                  </ActionItem>
                ) : null}
                {project.state === 'ACTIVE' ? (
                  <ActionItem
                    need={{ permission: 'project:update', capability: 'CHANGE_RESOURCES' }}
                    onAction={() => ask(project, 'archive')}
                  >
                    {t('projects.archive')}
                  </ActionItem>
                ) : null}
                {project.state === 'ARCHIVED' ? (
                  <ActionItem
                    need={{ permission: 'project:update', capability: 'CHANGE_RESOURCES' }}
                    onAction={() => ask(project, 'unarchive')}
                  >
                    {t('projects.unarchive')}
                  </ActionItem>
                ) : null}
                {project.state !== 'DELETED' ? (
                  <ActionItem
                    danger
                    need={{ permission: 'project:delete', capability: 'CHANGE_RESOURCES' }}
                    onAction={() => ask(project, 'delete')}
                  >
                    {t('projects.delete')}
                  </ActionItem>
                ) : null}
              </ActionMenu>
            ),
          },
        ]}
      />
      {dialog.of('create') ? (
        <FormDialog
          title={t('projects.create')}
          action={t('projects.create')}
          command={create}
          close={() => {
            create.reset();
            dialog.close();
          }}
          fields={['name', 'slug']}
          act={async ({ name = '', slug = '', reason }) => {
            const outcome = await create.run({ organizationId, name, slug, reason });
            if (outcome?.done) toast(t('projects.madeNew', { name }));
            return outcome?.done ?? false;
          }}
        >
          <Field name="name" label={t('projects.name')} refusals={create.refusals} isRequired autoFocus />
          <Field name="slug" label={t('projects.slug')} hint={t('home.create.slug.hint')} refusals={create.refusals} isRequired />
        </FormDialog>
      ) : null}
      <RenameDialog command={update} project={dialog.of('rename')?.subject ?? null} close={dialog.close} />
      {(['archive', 'unarchive', 'delete', 'restore'] as const).map((what) => {
        const subject = dialog.of(what)?.subject;
        return subject ? (
          <FormDialog
            key={what}
            title={t(`projects.${what}`)}
            text={subject.name}
            action={t(`projects.${what}`)}
            danger={what === 'delete'}
            command={commands[what]}
            close={dialog.close}
            act={({ reason }) => act(subject, what, reason)}
          />
        ) : null;
      })}
    </Page>
  );
}

function NotYet() {
  const may = useMay()({ capability: 'CREATE_RESOURCES' });
  return may.allowed ? null : <>{may.reason}</>;
}

function RenameDialog({
  command,
  project,
  close,
}: {
  command: Command<UpdateProjectMutation, UpdateProjectInput>;
  project: Project | null;
  close: () => void;
}) {
  const t = useText();
  if (!project) return null;
  return (
    <FormDialog
      title={t('projects.rename')}
      action={t('act.save')}
      command={command}
      close={() => {
        command.reset();
        close();
      }}
      fields={['name', 'slug']}
      act={async ({ name, slug, reason }) => {
        const outcome = await command.run({
          projectId: project.id,
          // Others may have changed it meanwhile: then the service says so instead of overwriting.
          expectedVersion: project.version,
          reason,
          ...(name === project.name ? {} : { name }),
          ...(slug === project.slug ? {} : { slug }),
        });
        if (outcome?.done) {
          toast(t('projects.saved'), {
            reason,
            undo: (reason) => command.run({ projectId: project.id, name: project.name, slug: project.slug, reason }),
          });
        }
        return outcome?.done ?? false;
      }}
    >
      <Field name="name" label={t('projects.name')} defaultValue={project.name} refusals={command.refusals} isRequired autoFocus />
      <Field name="slug" label={t('projects.slug')} defaultValue={project.slug} refusals={command.refusals} isRequired />
      <Notice>
        <p>{t('projects.rename.text')}</p>
      </Notice>
    </FormDialog>
  );
}
