import { defineConfig } from 'vitest/config';

export default defineConfig({
  resolve: { conditions: ['tenancy-source'] },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
