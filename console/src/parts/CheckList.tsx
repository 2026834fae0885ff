import { Check } from 'lucide-react';
import { Checkbox, CheckboxGroup, FieldError, Label, Text } from 'react-aria-components';
import type { Refusal } from '@tenancy/client';
import css from './checklist.module.css';
import { isAbout } from './Notice.tsx';
import parts from './parts.module.css';

export interface CheckOption {
  value: string;
  text?: string;
  description?: string;
  /** Why it cannot be changed; null where it can. */
  against?: string | null;
}

/** Several of several, such as roles or permissions. What cannot be chosen says why. */
export function CheckList({
  name,
  label,
  hint,
  value,
  options,
  onChange,
  refusals = [],
}: {
  /** As the input's field is called: refusals about it stand here. */
  name: string;
  label: string;
  hint?: string;
  value: readonly string[];
  options: readonly CheckOption[];
  onChange: (value: string[]) => void;
  refusals?: readonly Refusal[];
}) {
  const mine = refusals.filter(({ path }) => isAbout(path, name));
  return (
    <CheckboxGroup
      className={parts.field!}
      value={[...value]}
      onChange={onChange}
      isInvalid={mine.length > 0}
      validationBehavior="aria"
    >
      <Label className={parts.label!}>{label}</Label>
      {hint ? (
        <Text slot="description" className={parts.hint!}>
          {hint}
        </Text>
      ) : null}
      <FieldError className={parts.fieldError!}>{mine.map(({ message }) => message).join(' ')}</FieldError>
      <div className={css.options}>
        {options.map(({ value, text, description, against }) => (
          <Checkbox key={value} value={value} isDisabled={Boolean(against)} className={css.option!}>
            <span className={css.box} aria-hidden>
              <Check size={12} />
            </span>
            <span>
              <span className={css.name}>{text ?? value}</span>
              {description ? <span className={css.note}>{description}</span> : null}
              {against ? <span className={css.against}>{against}</span> : null}
            </span>
          </Checkbox>
        ))}
      </div>
    </CheckboxGroup>
  );
}
