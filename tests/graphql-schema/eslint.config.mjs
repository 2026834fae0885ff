// What graphql-eslint asks of a schema, with the exceptions that this one makes on purpose.
import graphql from '@graphql-eslint/eslint-plugin';

const recommended = graphql.configs['flat/schema-recommended'].rules;
const [, naming] = recommended['@graphql-eslint/naming-convention'];
const schema = 'schema.graphql';

export default [
  {
    files: ['**/*.graphql'],
    languageOptions: { parser: graphql.parser, parserOptions: { graphQLConfig: { schema } } },
    plugins: { '@graphql-eslint': graphql },
    rules: {
      ...recommended,
      ...graphql.configs['flat/schema-relay'].rules,
      // Everything is described: types, fields, arguments, fields of inputs, values of enums.
      '@graphql-eslint/require-description': [
        'error',
        {
          // The engine writes no descriptions of directives' arguments.
          ignoredSelectors: ['DirectiveDefinition > InputValueDefinition'],
          types: true, FieldDefinition: true, InputValueDefinition: true, EnumValueDefinition: true, DirectiveDefinition: true,
        },
      ],
      // A type of event is called so everywhere; the name is older than the rule.
      '@graphql-eslint/naming-convention': [
        'error',
        { ...naming, 'ObjectTypeDefinition,ObjectTypeExtension': { forbiddenPrefixes: ['Type'] } },
      ],
      // Payloads, refusals, proofs and snapshots are no nodes: nobody asks for them by an id.
      '@graphql-eslint/strict-id-in-types': 'off',
      // Lists of roles or limits are short and whole, so they are no connections. Nodes of the access trail and of what
      // was, have no id of their own.
      '@graphql-eslint/relay-edge-types': [
        'error',
        { withEdgeSuffix: true, shouldImplementNode: false, listTypeCanWrapOnlyEdgeType: false },
      ],
    },
  },
];
