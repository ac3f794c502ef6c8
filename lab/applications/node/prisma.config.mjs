// Nothing here connects: the client is generated from the schema, and its URLs come from the environment.
export default { schema: 'schema.prisma', datasource: { url: 'postgresql://nowhere' } }
