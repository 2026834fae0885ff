// Makes src/generated from ../schema.graphql and the .graphql files of the screens: the typed documents, and what the
// cache has to know of the schema, and the texts of all screens in one file a language.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { mergeTexts } from './texts.mjs';
import { generate } from '@graphql-codegen/cli';
import { minifyIntrospectionQuery } from '@urql/introspection';
import { buildSchema, introspectionFromSchema } from 'graphql';

const schemaFile = '../schema.graphql';

await mkdir('src/generated', { recursive: true });

const introspection = minifyIntrospectionQuery(introspectionFromSchema(buildSchema(await readFile(schemaFile, 'utf8'))));
for (const type of introspection.__schema.types) {
  // The cache asks for types and for what may be null. Arguments would be a third of the first load.
  for (const field of type.fields ?? []) field.args = [];
}
await writeFile('src/generated/introspection.json', JSON.stringify(introspection));

for (const language of ['en', 'de']) {
  await writeFile(`src/generated/texts.${language}.json`, `${JSON.stringify(await mergeTexts(language), null, 1)}\n`);
}

await generate(
  {
    schema: schemaFile,
    documents: ['src/**/*.graphql'],
    silent: true,
    generates: {
      'src/generated/': {
        preset: 'client',
        presetConfig: { fragmentMasking: false },
        config: {
          documentMode: 'string',
          enumsAsTypes: true,
          useTypeImports: true,
          strictScalars: true,
          scalars: {
            DateTime: 'string',
            JSON: 'unknown',
            Long: 'number',
            Position: 'string',
          },
        },
      },
    },
  },
  true,
);
