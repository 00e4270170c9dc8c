-- Whose turn it is: where a limit says how much a tenant may have, whoever adds something takes this row
-- first, so that what is counted can't change before it commits. Rows come with the first use.

create table turn (
    tenant_id bigint not null default waangu.tenant()
    -- What is added, and by whom.
  , name text collate "C" not null
    -- What was to be added by the last who took it.
  , subject text not null
  , constraint turn_pkey primary key (tenant_id, name)
  , constraint turn_name_check check (char_length(name) between 1 and 40)
  , constraint turn_subject_check check (char_length(subject) between 1 and 200)
);
