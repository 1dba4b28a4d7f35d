-- The life of the log in which a block was made: 32 hexadecimal digits.
--
-- Blocks from before this column were made by no server that was ever released; their hash does not
-- cover their time, so they are made anew.
delete from seals;
alter table seals add column incarnation text not null default '';
