import { useText } from '../texts/texts.tsx';
import { FormDialog } from './Dialogs.tsx';
import { Field } from './Field.tsx';

/** A form of the operators' plane. No organization is open there, so the dialog itself asks for the reason: `fields.reason`. */
export function ReasonDialog({ fields = [], children, hint, ...props }: Parameters<typeof FormDialog>[0] & { hint?: string }) {
  const t = useText();
  return (
    <FormDialog {...props} fields={[...fields, 'reason']}>
      {children}
      <Field
        name="reason"
        label={t('act.reason')}
        hint={hint ?? t('act.reason.hint')}
        refusals={props.command.refusals}
        rows={2}
        isRequired
        autoFocus={!children}
      />
    </FormDialog>
  );
}
