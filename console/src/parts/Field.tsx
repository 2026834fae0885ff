import { FieldError, Input, Label, Text, TextArea, TextField, type TextFieldProps } from 'react-aria-components';
import type { Refusal } from '@tenancy/client';
import { isAbout } from './Notice.tsx';
import css from './parts.module.css';

/** A text field. Give `name` as the input's field is called, and a refusal about it stands here. */
export function Field({
  label,
  hint,
  refusals = [],
  rows,
  placeholder,
  ...props
}: Omit<TextFieldProps, 'className' | 'children'> & {
  name: string;
  label: string;
  hint?: string;
  refusals?: readonly Refusal[];
  /** More than one line. */
  rows?: number;
  placeholder?: string;
}) {
  const mine = refusals.filter(({ path }) => isAbout(path, props.name));
  const input = { className: css.input!, placeholder, autoComplete: 'off' };
  return (
    <TextField {...props} className={css.field!} isInvalid={mine.length > 0} validationBehavior="aria">
      <Label className={css.label!}>{label}</Label>
      {rows ? <TextArea {...input} rows={rows} /> : <Input {...input} />}
      {hint && mine.length === 0 ? (
        <Text slot="description" className={css.hint!}>
          {hint}
        </Text>
      ) : null}
      <FieldError className={css.fieldError!}>{mine.map(({ message }) => message).join(' ')}</FieldError>
    </TextField>
  );
}
